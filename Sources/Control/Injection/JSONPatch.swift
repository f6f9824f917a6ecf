import OrderedCollections

/// One operation of a JSON Patch (RFC 6902). Only these three are made here.
enum PatchOperation: Equatable, Sendable {
    case add(JSONPointer, JSON)
    case replace(JSONPointer, JSON)
    case remove(JSONPointer)

    var path: JSONPointer {
        switch self {
        case .add(let path, _), .replace(let path, _), .remove(let path): path
        }
    }

    var value: JSON? {
        switch self {
        case .add(_, let value), .replace(_, let value): value
        case .remove: nil
        }
    }

    /// As the API server takes it: {"op":"add","path":"/spec/…","value":…}.
    var json: JSON {
        switch self {
        case .add(let path, let value): ["op": "add", "path": .string(path.text), "value": value]
        case .replace(let path, let value): ["op": "replace", "path": .string(path.text), "value": value]
        case .remove(let path): ["op": "remove", "path": .string(path.text)]
        }
    }
}

extension JSON {
    /// Carries a patch out, in place; false where one of its places is not there, with what came before it carried out.
    mutating func apply(_ patch: [PatchOperation]) -> Bool {
        for operation in patch where !apply(operation, at: operation.path.parts[...]) { return false }
        return true
    }

    private mutating func apply(_ operation: PatchOperation, at parts: ArraySlice<String>) -> Bool {
        guard let part = parts.first else { return false }
        let isLast = parts.count == 1
        // Whoever else holds a list makes its change a copy, and many changes of one would take time by their square; a
        // switch holds what it looks at.
        if case .object(var members) = self {
            self = .null
            defer { self = .object(members) }
            if isLast {
                if case .add = operation {} else if members[part] == nil { return false }
                members[part] = operation.value
                return true
            }
            guard var inner = members[part] else { return false }
            members[part] = .null
            defer { members[part] = inner }
            return inner.apply(operation, at: parts.dropFirst())
        }
        if case .array(var elements) = self {
            self = .null
            defer { self = .array(elements) }
            let end = elements.count
            guard let index = part == "-" ? end : Int(part), (0...end).contains(index) else { return false }
            if isLast, case .add(_, let value) = operation {
                elements.insert(value, at: index)
                return true
            }
            guard index < end else { return false }
            if !isLast { return elements[index].apply(operation, at: parts.dropFirst()) }
            elements.replaceSubrange(index...index, with: operation.value.map { [$0] } ?? [])
            return true
        }
        return false
    }
}

/// A place in a document, as a list of member names, positions, and "-" for behind the last (RFC 6901).
struct JSONPointer: Equatable, Sendable, ExpressibleByArrayLiteral {
    var parts: [String]

    init(_ parts: [String]) { self.parts = parts }
    init(arrayLiteral parts: String...) { self.parts = parts }

    static func / (base: JSONPointer, part: String) -> JSONPointer { JSONPointer(base.parts + [part]) }
    static func / (base: JSONPointer, index: Int) -> JSONPointer { base / String(index) }

    /// "/metadata/annotations/ferrite.io~1sidecar-status".
    var text: String {
        parts.map { part in
            "/"
                + part.map { character in
                    switch character {
                    case "~": "~0"
                    case "/": "~1"
                    default: String(character)
                    }
                }.joined()
        }.joined()
    }
}
