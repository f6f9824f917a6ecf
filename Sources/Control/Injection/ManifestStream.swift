import Foundation
import Yams

/// A file of Kubernetes objects: YAML documents with `---` between them, JSON objects one after the other, or both.
/// Each keeps the bytes that it was read from, and gives them back unless it was changed.
struct ManifestStream {
    struct Document {
        /// The bytes, with the line that begins the document and the comments around it.
        var text: String
        /// nil for a document of comments only.
        var object: Node?
        var isJSON = false
        /// Behind another JSON object, without a line of `---` between them.
        var isContinued = false
        /// Of the document's first line in the file, from 1.
        var line: Int
        /// Why it can be handed on as it is, and not be written anew.
        var flaw: Malformed?
    }

    /// Where a file is no YAML, or none that is understood here, and why.
    struct Malformed: Error, Equatable {
        var line: Int
        var what: String
    }

    var documents: [Document]

    init(_ text: String) throws(Malformed) {
        documents = []
        for (text, line) in Self.split(text) { documents += try Self.documents(text, line: line) }
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

    private static func documents(_ text: String, line: Int) throws(Malformed) -> [Document] {
        let content = withoutMarks(text)
        if content.first(where: { !$0.isWhitespace }) == "{", let objects = jsonObjects(text, line: line) {
            return objects
        }
        do {
            // What is no object (comments only, a list, a text) is nobody's to change.
            let written = try compose(yaml: content)
            let node = written?.merged
            return [
                Document(
                    text: text, object: node?.mapping == nil ? nil : node, line: line,
                    flaw: flaw(of: written, content, from: line))
            ]
        } catch let error as YamlError {
            throw malformed(error, from: line)
        } catch {
            throw Malformed(line: line, what: "\(error)")
        }
    }

    /// nil where it is no JSON, or something else beside it.
    private static func jsonObjects(_ text: String, line: Int) -> [Document]? {
        var documents: [Document] = []
        var line = line
        for piece in objects(in: text) {
            guard let json = try? JSONReader.read(withoutMarks(piece).utf8) else { return nil }
            documents.append(
                Document(text: piece, object: json.node, isJSON: true, isContinued: !documents.isEmpty, line: line))
            line += piece.utf8.count { $0 == UInt8(ascii: "\n") }
        }
        return documents
    }

    /// The text cut in front of each `{` but the first that is in no other brackets and no string.
    private static func objects(in text: String) -> [String] {
        var pieces: [String] = []
        var start = text.startIndex
        var depth = 0
        var isInString = false
        var isEscaped = false
        for (place, byte) in zip(text.utf8.indices, text.utf8) {
            if isInString {
                isInString = isEscaped || byte != UInt8(ascii: "\"")
                isEscaped = !isEscaped && byte == UInt8(ascii: "\\")
                continue
            }
            switch byte {
            case UInt8(ascii: "\""): isInString = true
            case UInt8(ascii: "{"), UInt8(ascii: "["):
                if depth == 0, byte == UInt8(ascii: "{"), text[start..<place].utf8.contains(UInt8(ascii: "}")) {
                    pieces.append(String(text[start..<place]))
                    start = place
                }
                depth += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
            default: break
            }
        }
        return pieces + [String(text[start...])]
    }

    /// Without the byte order mark with which a file, or a document in it, may begin; the lines stay the same.
    fileprivate static func withoutMarks(_ text: String) -> String {
        guard text.unicodeScalars.contains(mark) else { return text }
        var isHead = true
        return lines(of: text).map { line in
            guard isHead else { return line }
            let line = line.unicodeScalars.first == mark ? String(line.unicodeScalars.dropFirst()) : line
            isHead = isInFront(line)
            return line
        }.joined(separator: "\n")
    }

    static let mark: Unicode.Scalar = "\u{FEFF}"

    /// Whether a line stands in front of a document's object: a marker, a comment, or nothing.
    fileprivate static func isInFront(_ line: String) -> Bool {
        line.hasPrefix("---") || line.hasPrefix("#") || line.allSatisfy(\.isWhitespace)
    }

    private static func flaw(of node: Node?, _ content: String, from line: Int) -> Malformed? {
        if let unreadable = node?.firstUnreadable {
            return Malformed(
                line: line + (unreadable.mark?.line ?? 1) - 1,
                what: "what is tagged \(unreadable.tag) cannot be read: write it without the tag")
        }
        // Foundation, by which the parser makes texts, drops one with which a value begins.
        let lines = lines(of: content.lowercased())
        let marked = lines.firstIndex {
            $0.unicodeScalars.contains(mark) || $0.contains("\\ufeff") || $0.contains("\\u0000feff")
        }
        return marked.map {
            Malformed(
                line: line + $0, what: "a byte order mark in a value would be lost: take it out, or give it as JSON")
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
        let mark = text.unicodeScalars.first == ManifestStream.mark ? "\u{FEFF}" : ""
        if isJSON {
            text = mark + (try ManifestStream.json(JSON(object)))
            return
        }
        let head = ManifestStream.lines(of: ManifestStream.withoutMarks(text)).prefix(while: ManifestStream.isInFront)
        let kept = head.map { ($0.hasPrefix("--- ") || $0.hasPrefix("---\t")) && !$0.hasPrefix("--- #") ? "---" : $0 }
        text = mark + kept.map { $0 + "\n" }.joined() + (try ManifestStream.yaml(object))
    }

    /// As it is, unless it is JSON.
    func yaml() throws -> String {
        guard let object, isJSON else { return text }
        return "---\n" + (try ManifestStream.yaml(object))
    }
}
