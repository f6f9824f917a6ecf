import Foundation
import Yams

/// A file of Kubernetes objects: YAML documents with `---` between them, or one JSON text. Each keeps the bytes that it
/// was read from, and gives them back unless it was changed.
struct ManifestStream {
    struct Document {
        /// The bytes, with the line that begins the document and the comments around it.
        var text: String
        /// nil for a document of comments only.
        var object: Node?
        var isJSON = false
        /// Of the document's first line in the file, from 1.
        var line: Int
    }

    /// Where a file is no YAML, and why.
    struct Malformed: Error, Equatable {
        var line: Int
        var what: String
    }

    var documents: [Document]

    init(_ text: String) throws(Malformed) {
        documents = []
        for (text, line) in Self.split(text) { documents.append(try Self.document(text, line: line)) }
    }

    /// A line of `---` begins a document; nothing indented can look so (YAML 1.2, 9.1.2).
    private static func split(_ text: String) -> [(text: String, line: Int)] {
        var parts: [(text: String, line: Int)] = []
        var current = ""
        var first = 1
        var number = 0
        for line in lines(of: text) {
            number += 1
            let isMarker = line == "---" || line == "---\r" || line.hasPrefix("--- ") || line.hasPrefix("---\t")
            if isMarker, !current.isEmpty {
                parts.append((current, first))
                (current, first) = ("", number)
            }
            current += line + "\n"
        }
        // The last piece has got a line's end that was not there.
        current.unicodeScalars.removeLast()
        if !current.isEmpty { parts.append((current, first)) }
        return parts
    }

    /// Without their ends, but for a carriage return: to Swift a CR and an LF are one character.
    fileprivate static func lines(of text: String) -> [String] {
        text.utf8.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map { String(Substring($0)) }
    }

    private static func document(_ text: String, line: Int) throws(Malformed) -> Document {
        if text.first(where: { !$0.isWhitespace }) == "{",
            let json = try? JSONReader.read(text.utf8)
        {
            return Document(text: text, object: json.node, isJSON: true, line: line)
        }
        do {
            // What is no object (comments only, a list, a text) is nobody's to change.
            let node = try compose(yaml: text)?.merged
            return Document(text: text, object: node?.mapping == nil ? nil : node, line: line)
        } catch let error as YamlError {
            throw malformed(error, from: line)
        } catch {
            throw Malformed(line: line, what: "\(error)")
        }
    }

    private static func malformed(_ error: YamlError, from line: Int) -> Malformed {
        switch error {
        case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _),
            .composer(_, let problem, let mark, _):
            Malformed(line: line + mark.line - 1, what: problem)
        case .reader(let problem, _, _, _): Malformed(line: line, what: problem)
        case .duplicatedKeysInMapping(let duplicates, _):
            Malformed(line: line, what: "the same key twice: \(duplicates)")
        default: Malformed(line: line, what: "\(error)")
        }
    }
}

extension ManifestStream {
    /// One object, or a List of several.
    static func json(_ objects: [Node]) throws -> String {
        let all = objects.map { JSON($0) }
        return try json(all.count == 1 ? all[0] : ["apiVersion": "v1", "kind": "List", "items": .array(all)])
    }

    fileprivate static func json(_ object: JSON) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(object), as: UTF8.self) + "\n"
    }

    static func yaml(_ object: Node) throws -> String {
        try serialize(node: object, indent: 2, width: -1, allowUnicode: true)
    }
}

extension ManifestStream.Document {
    /// Takes the changed object in place of the bytes that were read. What stood in front of the object's first line, the
    /// marker and comments, stays; other comments go.
    mutating func replace(_ object: Node) throws {
        self.object = object
        if isJSON {
            text = try ManifestStream.json(JSON(object))
            return
        }
        let head = ManifestStream.lines(of: text).prefix {
            $0.hasPrefix("---") || $0.hasPrefix("#") || $0.allSatisfy(\.isWhitespace)
        }
        let kept = head.map { ($0.hasPrefix("--- ") || $0.hasPrefix("---\t")) && !$0.hasPrefix("--- #") ? "---" : $0 }
        text = kept.map { $0 + "\n" }.joined() + (try ManifestStream.yaml(object))
    }

    /// As it is, unless it is JSON.
    func yaml() throws -> String {
        guard let object, isJSON else { return text }
        return "---\n" + (try ManifestStream.yaml(object))
    }
}
