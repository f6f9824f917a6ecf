import Foundation
import Testing

@testable import Control

@Test("ferritectl has the daemon's version")
func version() throws {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    let source = try String(contentsOf: root.appending(path: "Sources/Sidecar/Version.swift"), encoding: .utf8)
    #expect(source.contains("current = \"\(Version.current)\""))
}
