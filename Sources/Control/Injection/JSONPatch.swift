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
