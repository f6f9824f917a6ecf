import OrderedCollections

/// JSON as RFC 8259 has it, from bytes that may be anybody's: time and memory grow with their number, and depth is bounded.
/// (Foundation's decoder cannot be asked what a value is, only whether it is this or that, and each no costs an error with
/// the whole path to it: 20 kB of nested arrays held an event loop for a minute.)
struct JSONReader {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// Of objects and arrays in each other; a pod has some dozen, with managedFields too.
    static let depthMax = 128

    private let bytes: UnsafeBufferPointer<UInt8>
    private var at = 0
    private var depth = 0

    /// One value, with white space around it and nothing else.
    static func read(_ bytes: some Collection<UInt8>) throws(Failure) -> JSON {
        let result: Result<JSON, Failure> = Array(bytes).withUnsafeBufferPointer { buffer in
            var reader = JSONReader(bytes: buffer)
            do throws(Failure) {
                let value = try reader.value()
                guard reader.skipSpace() == nil else { throw reader.failure("something stands behind the value") }
                return .success(value)
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    private init(bytes: UnsafeBufferPointer<UInt8>) { self.bytes = bytes }

    private func failure(_ what: String) -> Failure { Failure(description: "\(what) at byte \(at)") }

    private var next: UInt8? { at < bytes.count ? bytes[at] : nil }

    /// The first byte that is no white space; nil at the end.
    private mutating func skipSpace() -> UInt8? {
        while let byte = next, byte == 0x20 || byte == 0x09 || byte == 0x0A || byte == 0x0D { at += 1 }
        return next
    }

    private mutating func expect(_ byte: UInt8) throws(Failure) {
        guard skipSpace() == byte else { throw failure("expected '\(Character(UnicodeScalar(byte)))'") }
        at += 1
    }

    private mutating func value() throws(Failure) -> JSON {
        guard let byte = skipSpace() else { throw failure("a value is missing") }
        switch byte {
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "{"), UInt8(ascii: "["):
            guard depth < Self.depthMax else {
                throw failure("more than \(Self.depthMax) objects and arrays in each other")
            }
            depth += 1
            defer { depth -= 1 }
            at += 1
            return try byte == UInt8(ascii: "{") ? object() : array()
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try number()
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        default: throw failure("no value begins like this")
        }
    }

    private mutating func word(_ word: StaticString, _ value: JSON) throws(Failure) -> JSON {
        let isThere = word.withUTF8Buffer { word in
            at + word.count <= bytes.count && bytes[at..<at + word.count].elementsEqual(word)
        }
        guard isThere else { throw failure("no value begins like this") }
        at += word.utf8CodeUnitCount
        return value
    }

    private mutating func object() throws(Failure) -> JSON {
        var members = OrderedMembers()
        if skipSpace() == UInt8(ascii: "}") {
            at += 1
            return .object(members)
        }
        while true {
            guard skipSpace() == UInt8(ascii: "\"") else { throw failure("expected a member's name") }
            let name = try string()
            try expect(UInt8(ascii: ":"))
            members[name] = try value()
            if skipSpace() == UInt8(ascii: "}") {
                at += 1
                return .object(members)
            }
            try expect(UInt8(ascii: ","))
        }
    }

    private mutating func array() throws(Failure) -> JSON {
        var elements: [JSON] = []
        if skipSpace() == UInt8(ascii: "]") {
            at += 1
            return .array(elements)
        }
        while true {
            elements.append(try value())
            if skipSpace() == UInt8(ascii: "]") {
                at += 1
                return .array(elements)
            }
            try expect(UInt8(ascii: ","))
        }
    }

    private mutating func digits() throws(Failure) {
        let start = at
        while let byte = next, byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") { at += 1 }
        if at == start { throw failure("expected a digit") }
    }

    private mutating func number() throws(Failure) -> JSON {
        let start = at
        var isWhole = true
        if next == UInt8(ascii: "-") { at += 1 }
        if next == UInt8(ascii: "0") { at += 1 } else { try digits() }
        if next == UInt8(ascii: ".") {
            isWhole = false
            at += 1
            try digits()
        }
        if next == UInt8(ascii: "e") || next == UInt8(ascii: "E") {
            isWhole = false
            at += 1
            if next == UInt8(ascii: "+") || next == UInt8(ascii: "-") { at += 1 }
            try digits()
        }
        let text = String(decoding: bytes[start..<at], as: UTF8.self)
        if isWhole, let whole = Int64(text) { return .integer(whole) }
        guard let number = Double(text), number.isFinite else { throw failure("a number too large") }
        return .number(number)
    }

    private mutating func string() throws(Failure) -> String {
        at += 1
        let start = at
        while let byte = next, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\"), byte >= 0x20 { at += 1 }
        if next == UInt8(ascii: "\"") {
            defer { at += 1 }
            return try text(bytes[start..<at])
        }
        var escaped = Array(bytes[start..<at])
        while true {
            guard let byte = next, byte >= 0x20 else { throw failure("a string without end") }
            at += 1
            switch byte {
            case UInt8(ascii: "\""): return try text(escaped[...])
            case UInt8(ascii: "\\"): try escape(into: &escaped)
            default: escaped.append(byte)
            }
        }
    }

    private func text(_ slice: some Collection<UInt8>) throws(Failure) -> String {
        guard let text = String(validating: slice, as: UTF8.self) else { throw failure("a string that is not UTF-8") }
        return text
    }

    private mutating func escape(into out: inout [UInt8]) throws(Failure) {
        guard let byte = next else { throw failure("a string without end") }
        at += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): out.append(byte)
        case UInt8(ascii: "b"): out.append(0x08)
        case UInt8(ascii: "f"): out.append(0x0C)
        case UInt8(ascii: "n"): out.append(0x0A)
        case UInt8(ascii: "r"): out.append(0x0D)
        case UInt8(ascii: "t"): out.append(0x09)
        case UInt8(ascii: "u"): out.append(contentsOf: Array(String(try escapedScalar()).utf8))
        default: throw failure("no such escape")
        }
    }

    /// Half a surrogate pair is the replacement character, as Go reads it.
    private mutating func escapedScalar() throws(Failure) -> Character {
        let first = try hexadecimal()
        if let scalar = UnicodeScalar(first) { return Character(scalar) }
        let isHigh = first < 0xDC00, behind = at
        guard isHigh, at + 1 < bytes.count, bytes[at] == UInt8(ascii: "\\"), bytes[at + 1] == UInt8(ascii: "u") else {
            return "\u{FFFD}"
        }
        at += 2
        let second = UInt32(try hexadecimal())
        guard second >= 0xDC00, second < 0xE000,
            let scalar = UnicodeScalar(0x10000 + (UInt32(first) - 0xD800) << 10 + (second - 0xDC00))
        else {
            at = behind
            return "\u{FFFD}"
        }
        return Character(scalar)
    }

    private mutating func hexadecimal() throws(Failure) -> UInt16 {
        guard at + 4 <= bytes.count else { throw failure("a string without end") }
        var number: UInt16 = 0
        for byte in bytes[at..<at + 4] {
            guard let digit = Character(UnicodeScalar(byte)).hexDigitValue else { throw failure("no such escape") }
            number = number << 4 | UInt16(digit)
        }
        at += 4
        return number
    }
}
