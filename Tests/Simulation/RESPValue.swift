/// A RESP reply as a client understands it; and commands as they stand on the wire.
indirect enum RESPValue: Equatable {
    case simple([UInt8])
    case error([UInt8])
    case integer(Int)
    case bulk([UInt8])
    case null
    case array([RESPValue])
    case map([RESPValue])
    case push([RESPValue])

    var isError: Bool { if case .error = self { true } else { false } }

    var text: String {
        switch self {
        case .simple(let bytes), .bulk(let bytes): String(decoding: bytes, as: UTF8.self)
        case .error(let bytes): "-" + String(decoding: bytes, as: UTF8.self)
        case .integer(let number): ":\(number)"
        case .null: "null"
        case .array(let items), .map(let items): "[" + items.map(\.text).joined(separator: " ") + "]"
        case .push(let items): ">[" + items.map(\.text).joined(separator: " ") + "]"
        }
    }
}

/// Bytes as they come in, and what is complete of them.
struct RESPReader {
    private var bytes: [UInt8] = []
    private var start = 0

    mutating func append(_ more: some Sequence<UInt8>) {
        if start > 4_096 {
            bytes.removeFirst(start)
            start = 0
        }
        bytes.append(contentsOf: more)
    }

    var isEmpty: Bool { start == bytes.count }

    enum Outcome {
        case partial
        case malformed
        case value(RESPValue)
    }

    mutating func next() -> Outcome {
        var at = start
        let outcome = value(&at)
        if case .value = outcome { start = at }
        if start == bytes.count {
            bytes.removeAll(keepingCapacity: true)
            start = 0
        }
        return outcome
    }

    /* The line without its end; nil: not there yet. */
    private func line(_ at: inout Int) -> Range<Int>? {
        var end = at
        while end + 1 < bytes.count {
            if bytes[end] == 13, bytes[end + 1] == 10 {
                defer { at = end + 2 }
                return at..<end
            }
            end += 1
        }
        return nil
    }

    private func number(_ range: Range<Int>) -> Int? {
        var value = 0
        var sign = 1
        for index in range {
            if index == range.lowerBound, bytes[index] == UInt8(ascii: "-") {
                sign = -1
            } else if bytes[index] >= 48, bytes[index] <= 57 {
                value = value * 10 + Int(bytes[index] - 48)
            } else {
                return nil
            }
        }
        return range.isEmpty ? nil : sign * value
    }

    private func value(_ at: inout Int) -> Outcome {
        guard at < bytes.count else { return .partial }
        let type = bytes[at]
        var rest = at + 1
        guard let head = line(&rest) else { return .partial }
        switch type {
        case UInt8(ascii: "+"):
            at = rest
            return .value(.simple(Array(bytes[head])))
        case UInt8(ascii: "-"):
            at = rest
            return .value(.error(Array(bytes[head])))
        case UInt8(ascii: ":"):
            guard let number = number(head) else { return .malformed }
            at = rest
            return .value(.integer(number))
        case UInt8(ascii: "_"):
            at = rest
            return .value(.null)
        case UInt8(ascii: "$"):
            guard let length = number(head) else { return .malformed }
            if length < 0 {
                at = rest
                return .value(.null)
            }
            guard rest + length + 2 <= bytes.count else { return .partial }
            let body = Array(bytes[rest..<rest + length])
            guard bytes[rest + length] == 13, bytes[rest + length + 1] == 10 else { return .malformed }
            at = rest + length + 2
            return .value(.bulk(body))
        case UInt8(ascii: "*"), UInt8(ascii: "%"), UInt8(ascii: ">"):
            guard let count = number(head) else { return .malformed }
            if count < 0 {
                at = rest
                return .value(.null)
            }
            var items: [RESPValue] = []
            for _ in 0..<(type == UInt8(ascii: "%") ? count * 2 : count) {
                switch value(&rest) {
                case .value(let item): items.append(item)
                case .partial: return .partial
                case .malformed: return .malformed
                }
            }
            at = rest
            if type == UInt8(ascii: ">") { return .value(.push(items)) }
            return .value(type == UInt8(ascii: "*") ? .array(items) : .map(items))
        default:
            return .malformed
        }
    }
}

/// Writing RESP.
extension [UInt8] {
    mutating func append(decimal: Int) {
        var value = decimal
        if value < 0 {
            append(UInt8(ascii: "-"))
            value = -value
        }
        let from = count
        repeat {
            append(48 + UInt8(value % 10))
            value /= 10
        } while value > 0
        self[from...].reverse()
    }

    mutating func append(text: StaticString) {
        append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    mutating func appendHead(_ type: Unicode.Scalar, _ number: Int) {
        append(UInt8(truncatingIfNeeded: type.value))
        append(decimal: number)
        append(13)
        append(10)
    }

    mutating func appendBulk(_ bytes: [UInt8]) {
        appendHead("$", bytes.count)
        append(contentsOf: bytes)
        append(13)
        append(10)
    }

    mutating func appendCommand(_ words: [[UInt8]]) {
        appendHead("*", words.count)
        for word in words { appendBulk(word) }
    }

    /// "k7" and the like.
    init(_ letter: StaticString, _ number: Int) {
        self = []
        append(text: letter)
        append(decimal: number)
    }
}

extension String {
    var array: [UInt8] { Array(utf8) }
}
