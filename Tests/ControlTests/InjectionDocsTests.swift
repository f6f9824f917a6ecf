import Foundation
import Testing

@testable import Control

@Suite("docs/kubernetes.md")
struct InjectionDocsTests {
    private static let file = URL(filePath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "docs/kubernetes.md")

    @Test("lists every annotation, as the table has them")
    func everyAnnotation() throws {
        let lines = try String(contentsOf: Self.file, encoding: .utf8).components(separatedBy: "\n")
        let first = try #require(lines.firstIndex { $0.hasPrefix("<!-- annotations:") })
        let last = try #require(lines.firstIndex(of: "<!-- end of annotations -->"))
        let rows = SidecarAnnotation.all.map { "| `\($0.name)` | \($0.help) | \($0.expected) |" }
        let wanted = ["", "| annotation | | takes |", "| --- | --- | --- |"] + rows + [""]
        if ProcessInfo.processInfo.environment["FERRITE_WRITE_DOCS"] == "1" {
            let fresh = lines[...first] + wanted + lines[last...]
            try fresh.joined(separator: "\n").write(to: Self.file, atomically: true, encoding: .utf8)
            return
        }
        #expect(
            Array(lines[(first + 1)..<last]) == wanted,
            "run: FERRITE_WRITE_DOCS=1 swift test --filter InjectionDocsTests")
    }

    @Test("names every decision")
    func everyDecision() throws {
        let text = try String(contentsOf: Self.file, encoding: .utf8)
        let names = ["injected"] + Decision.Reason.allCases.map(\.rawValue) + Decision.Refusal.allCases.map(\.rawValue)
        for name in names { #expect(text.contains("| `\(name)` |"), "\(name)") }
    }
}
