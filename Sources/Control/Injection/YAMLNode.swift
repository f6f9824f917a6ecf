import Foundation
import OrderedCollections
import Yams

/// Between YAML nodes, which keep how a manifest was written, and JSON, which is what it means.
///
/// Plain scalars mean what they mean to Kubernetes (sigs.k8s.io/yaml): `yes` and `on` are booleans, dates are texts.
extension JSON {
    init(_ node: Node) {
        switch node {
        case .scalar(let scalar): self = Self.value(of: scalar)
        case .sequence(let sequence): self = .array(sequence.map { JSON($0) })
        case .mapping(let mapping):
            self = .object(
                OrderedMembers(
                    mapping.map { ($0.key.scalar?.string ?? "", JSON($0.value)) }, uniquingKeysWith: { _, last in last }
                ))
        case .alias: self = .null
        }
    }

    private static func value(of scalar: Node.Scalar) -> JSON {
        guard scalar.style == .plain || scalar.style == .any else { return .string(scalar.string) }
        let text = scalar.string
        switch Node.scalar(scalar).tag {
        case Tag(.null): return .null
        case Tag(.bool): return .bool(["yes", "true", "on"].contains(text.lowercased()))
        // To Kubernetes 12:30 is a text, and there is no number that is none.
        case Tag(.int) where !text.contains(":"):
            return Node.scalar(scalar).int.map { .integer(Int64($0)) } ?? number(text)
        case Tag(.float) where !text.contains(":"): return number(text)
        default: return .string(text)
        }
    }

    private static func number(_ text: String) -> JSON {
        guard let value = Double(text.filter { $0 != "_" }), value.isFinite else { return .string(text) }
        return .number(value)
    }

    /// In block style; texts that YAML would take for something else get quotes.
    var node: Node {
        switch self {
        case .null: Node("null", Tag(.null))
        case .bool(let value): Node(value ? "true" : "false", Tag(.bool))
        case .integer(let value): Node(String(value), Tag(.int))
        case .number(let value): Node(String(value), Tag(.float))
        case .string(let text): Self.node(of: text)
        case .array(let elements): Node(elements.map(\.node), .implicit, elements.isEmpty ? .flow : .block)
        case .object(let members):
            Node(members.map { (Self.node(of: $0), $1.node) }, .implicit, members.isEmpty ? .flow : .block)
        }
    }

    private static func node(of text: String) -> Node {
        let isText = Node(text).tag == Tag(.str) && !["y", "n"].contains(text.lowercased())
        return Node(text, Tag(.str), isText ? (text.contains("\n") ? .literal : .any) : .doubleQuoted)
    }
}

extension Node {
    /// A place that a patch names and the document does not have.
    struct NoSuchPlace: Error {
        var pointer: JSONPointer
    }

    mutating func apply(_ patch: [PatchOperation]) throws(NoSuchPlace) {
        for operation in patch {
            do throws(NoSuchPlace) {
                try apply(operation, at: operation.path.parts[...])
            } catch {
                throw NoSuchPlace(pointer: operation.path)
            }
        }
    }

    private mutating func apply(_ operation: PatchOperation, at parts: ArraySlice<String>) throws(NoSuchPlace) {
        guard let part = parts.first else { throw NoSuchPlace(pointer: operation.path) }
        let isLast = parts.count == 1
        // Whoever else holds a list makes its change a copy, and many changes of one would take time by their square; a
        // switch holds what it looks at.
        let nobody = Node("")
        if case .mapping(var mapping) = self {
            self = nobody
            defer { self = .mapping(mapping) }
            if isLast {
                if case .add = operation {} else if mapping[part] == nil { throw NoSuchPlace(pointer: operation.path) }
                mapping[part] = operation.value?.node
            } else {
                guard var inner = mapping[part] else { throw NoSuchPlace(pointer: operation.path) }
                mapping[part] = nobody
                defer { mapping[part] = inner }
                try inner.apply(operation, at: parts.dropFirst())
            }
        } else if case .sequence(var sequence) = self {
            self = nobody
            defer { self = .sequence(sequence) }
            let end = sequence.endIndex
            guard let index = part == "-" ? end : Int(part), (0...end).contains(index) else {
                throw NoSuchPlace(pointer: operation.path)
            }
            if isLast, case .add(_, let value) = operation {
                // What was written on one line as [] goes on in lines.
                if sequence.isEmpty { sequence.style = .block }
                sequence.insert(value.node, at: index)
            } else {
                guard index < end else { throw NoSuchPlace(pointer: operation.path) }
                if isLast {
                    sequence.replaceSubrange(index...index, with: operation.value.map { [$0.node] } ?? [])
                } else {
                    try sequence[index].apply(operation, at: parts.dropFirst())
                }
            }
        } else {
            throw NoSuchPlace(pointer: operation.path)
        }
    }

    /// With YAML's merge keys (`<<: *base`) carried out, everywhere below; and what is what it is by its tag alone
    /// (`!!str 1`, `!!int "1"`) written so that it is without, since tags are not written.
    var merged: Node {
        switch self {
        case .alias: return self
        case .scalar(let scalar): return .scalar(scalar.untagged ?? scalar)
        case .sequence(var sequence):
            for index in sequence.indices { sequence[index] = sequence[index].merged }
            return .sequence(sequence)
        case .mapping(let mapping):
            var result = Node.Mapping([], mapping.tag, mapping.style)
            for (key, value) in mapping where key.tag == Tag(.merge) {
                for base in value.sequence.map(Array.init) ?? [value] {
                    for (key, value) in base.merged.mapping ?? [:] where result[key] == nil { result[key] = value }
                }
            }
            for (key, value) in mapping where key.tag != Tag(.merge) { result[key] = value.merged }
            return .mapping(result)
        }
    }

    /// The first value below whose tag is not known, or is one that it cannot have.
    var firstUnreadable: (tag: String, mark: Mark?)? {
        switch self {
        case .alias: return nil
        case .scalar(let scalar): return scalar.untagged == nil ? (Self.short(scalar.tag), scalar.mark) : nil
        case .sequence(let sequence):
            if !["", "!", Tag.Name.seq.rawValue].contains(sequence.tag.rawValue) {
                return (Self.short(sequence.tag), sequence.mark)
            }
            return sequence.lazy.compactMap(\.firstUnreadable).first
        case .mapping(let mapping):
            if !["", "!", Tag.Name.map.rawValue].contains(mapping.tag.rawValue) {
                return (Self.short(mapping.tag), mapping.mark)
            }
            return mapping.lazy.compactMap { key, value in
                // A key is its text, whatever plain tag it has.
                key.scalar?.isName == false ? (Self.short(key.tag), key.mark) : value.firstUnreadable
            }.first
        }
    }

    private static func short(_ tag: Tag) -> String { tag.rawValue.replacing("tag:yaml.org,2002:", with: "!!") }
}

extension Node.Scalar {
    /// The same value without a tag, as Kubernetes reads it; nil where it cannot be.
    fileprivate var untagged: Node.Scalar? {
        switch Tag.Name(rawValue: tag.rawValue) {
        case .implicit: return self
        case .str, .nonSpecific:
            return style == .plain || style == .any ? .init(string, Tag(.str), .doubleQuoted, mark) : self
        case .null:
            return Node(string).tag == Tag(.null) ? .init("null", Tag(.null), .plain, mark) : nil
        case .int, .bool, .float:
            let implied = Node(string).tag
            guard implied == tag || implied == Tag(.int) && tag == Tag(.float), !string.contains(":") else {
                return nil
            }
            return .init(string, implied, .plain, mark)
        case .binary:
            guard let data = Data(base64Encoded: string.filter { !$0.isWhitespace }),
                let text = String(validating: data, as: UTF8.self)
            else { return nil }
            return .init(text, Tag(.str), .doubleQuoted, mark)
        default: return nil
        }
    }

    /// Whether it can be a key as it is written.
    fileprivate var isName: Bool {
        let plain: [Tag.Name] = [
            .implicit, .nonSpecific, .str, .null, .int, .bool, .float, .timestamp, .merge, .value,
        ]
        return plain.map(\.rawValue).contains(tag.rawValue)
    }
}
