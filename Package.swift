// swift-tools-version:6.1
import PackageDescription

let swiftSettings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

let cWarnings: [CSetting] = [
    .headerSearchPath("."),
    .unsafeFlags(["-Wall", "-Wextra", "-Werror=return-type", "-Wno-unused-function", "-fno-strict-aliasing"]),
]

/* A sanitizer brings an allocator of its own, and jemalloc's operator new beside it would hand its free foreign memory. */
let isSanitized = Context.environment["FERRITE_SANITIZED"] != nil

/* Who builds the simulator again and again, with one change after another, need not wait for the other tests. */
let isForSimulation = Context.environment["FERRITE_SIMULATION"] != nil
let otherTests: [Target] = [
    .testTarget(name: "SidecarTests", dependencies: ["Sidecar", "CFastPath"], swiftSettings: swiftSettings),
    .testTarget(
        name: "ControlTests",
        dependencies: [
            "Control", .product(name: "OrderedCollections", package: "swift-collections"),
            .product(name: "SwiftASN1", package: "swift-asn1"), .product(name: "X509", package: "swift-certificates"),
        ],
        exclude: ["Admission", "Pods"], swiftSettings: swiftSettings),
]

let package = Package(
    name: "ferrite-sidecar",
    products: [
        .executable(name: "ferrite", targets: ["Sidecar"]),
        .executable(name: "ferritectl", targets: ["Control"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-asn1", from: "1.7.4"),
        .package(url: "https://github.com/apple/swift-certificates", from: "1.21.1"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    ],
    targets: [
        .target(
            name: "CFastPath",
            cSettings: cWarnings,
            linkerSettings: [.linkedLibrary("uring"), .linkedLibrary("ssl"), .linkedLibrary("crypto")]
                + (isSanitized ? [] : [.linkedLibrary("jemalloc")])
        ),
        .executableTarget(
            name: "Sidecar",
            dependencies: [
                "CFastPath",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ],
            swiftSettings: swiftSettings
        ),
        .executableTarget(
            name: "Control",
            dependencies: [
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOFoundationCompat", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "OrderedCollections", package: "swift-collections"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "SwiftASN1", package: "swift-asn1"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
                .product(name: "X509", package: "swift-certificates"),
                .product(name: "Yams", package: "Yams"),
            ],
            swiftSettings: swiftSettings
        ),
        .executableTarget(
            name: "CFastPathTests",
            dependencies: ["CFastPath"],
            path: "Tests/CFastPathTests",
            cSettings: [
                .headerSearchPath("../../Sources/CFastPath"),
                .unsafeFlags(["-Wall", "-Wextra", "-Werror=return-type", "-Wno-unused-function"]),
            ]
        ),
        .testTarget(
            name: "Simulation", dependencies: ["Sidecar", "CFastPath"], path: "Tests/Simulation",
            exclude: ["mutants.py"],
            swiftSettings: swiftSettings),
    ] + (isForSimulation ? [] : otherTests),
    cLanguageStandard: .gnu2x
)
