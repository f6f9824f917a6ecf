import Foundation
import Testing

@testable import Sidecar

@Suite("docs/configuration.md")
struct ConfigDocsTests {
    private static let file = URL(filePath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "docs/configuration.md")

    private static let begin = "<!-- keys:"
    private static let end = "<!-- end of keys -->"

    @Test("lists every key with its type, default, names and help, as the table has them")
    func everyKey() throws {
        let text = try String(contentsOf: Self.file, encoding: .utf8)
        let lines = text.components(separatedBy: "\n")
        let first = try #require(lines.firstIndex { $0.hasPrefix(Self.begin) })
        let last = try #require(lines.firstIndex(of: Self.end))
        let wanted = Self.rendered()
        if ProcessInfo.processInfo.environment["FERRITE_WRITE_DOCS"] == "1" {
            let fresh = lines[...first] + [wanted] + lines[last...]
            try fresh.joined(separator: "\n").write(to: Self.file, atomically: true, encoding: .utf8)
            return
        }
        let found = lines[(first + 1)..<last].joined(separator: "\n")
        #expect(found == wanted, "run: FERRITE_WRITE_DOCS=1 swift test --filter ConfigDocsTests")
    }

    @Test("its whole file is a right configuration")
    func wholeFile() throws {
        let text = try String(contentsOf: Self.file, encoding: .utf8)
        let block = try #require(
            text.components(separatedBy: "```toml\n").last?.components(separatedBy: "```").first)
        var loader = ConfigLoader()
        loader.file = .init(name: "sidecar.toml", bytes: Array(block.utf8))
        loader.readSecret = { _ in Array("secret\n".utf8) }
        let resolved = try loader.load()
        #expect(resolved.config.upstream.host == "ferrite-cluster.default.svc")
        #expect(resolved.config.password == Secret("secret"))
        #expect(resolved.warnings.isEmpty)
    }

    private static func rendered() -> String {
        var lines: [String] = []
        for group in ConfigKey.Group.allCases {
            lines += ["", "### \(group.rawValue)", "", "| key | type | default | |", "| --- | --- | --- | --- |"]
            for key in ConfigKey.all where key.group == group {
                var names = "`\(key.environmentName)`"
                if let flag = key.flag { names += ", `\(flag)`" }
                let standard = key.name == "upstream" ? "none, required" : "`\(key.defaultText)`"
                lines.append("| `\(key.name)` | \(key.typeName) | \(standard) | \(key.help) Also \(names). |")
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }
}
