/// Reply — reading what the upstream has said. Every reply comes complete and framed, but what it says is not trusted:
/// whatever does not fit gives nil, and nothing here can trap.
#if canImport(Glibc)
    import Glibc
#endif

struct Reply {
    /// Complete, from its type byte to its last CRLF.
    let bytes: Bytes

    @inline(__always)
    init(_ bytes: Bytes) { self.bytes = bytes }

    @inline(__always)
    var type: UInt8 { bytes.isEmpty ? 0 : bytes[0] }

    var isError: Bool { type == UInt8(ascii: "-") || type == UInt8(ascii: "!") }

    @inline(__always)
    var isOK: Bool {
        bytes.count == 5 && bytes[0] == UInt8(ascii: "+") && bytes[1] == UInt8(ascii: "O")
            && bytes[2] == UInt8(ascii: "K")
    }

    var isQueued: Bool { type == UInt8(ascii: "+") && bytes.elementsEqual("+QUEUED\r\n".utf8) }

    /// A server that is a replica, and takes no writes.
    var isReadOnly: Bool { isError && bytes.starts(with: "-READONLY ".utf8) }

    /// Of ":<n>".
    @inline(__always)
    var integer: Int64? {
        guard type == UInt8(ascii: ":") else { return nil }
        var reader = ReplyReader(bytes)
        return reader.header()?.number
    }

    /// An error's text without "-" and CRLF, printable and cut to a line; nil for what is none.
    var errorText: String? {
        guard isError else { return nil }
        var reader = ReplyReader(bytes)
        guard let text = reader.text() else { return nil }
        return Self.line(text)
    }

    /// The bytes of a simple, bulk or verbatim string, the latter without "txt:"; nil for what is none.
    var text: Bytes? {
        var reader = ReplyReader(bytes)
        return reader.text()
    }

    /// One printable line of bounded length, safe in logs and errors.
    static func line(_ bytes: Bytes) -> String {
        let printable = bytes.prefix(200).map { $0 < 32 || $0 == 127 ? UInt8(ascii: " ") : $0 }
        return String(decoding: printable, as: UTF8.self)
    }
}

/// Walks through a reply's elements.
struct ReplyReader {
    private let bytes: Bytes
    private var position = 0

    init(_ bytes: Bytes) { self.bytes = bytes }

    /// The type byte and number of the next element's first line: a length, a count or an integer's value. An element
    /// whose first line holds no number (a simple string) gives nil and is left where it is.
    @inline(__always)
    mutating func header() -> (type: UInt8, number: Int64)? {
        guard position < bytes.count else { return nil }
        let type = bytes[position]
        var at = position &+ 1
        var negative = false
        if at < bytes.count, bytes[at] == UInt8(ascii: "-") {
            negative = true
            at &+= 1
        }
        let digitsStart = at
        var value: Int64 = 0
        while at < bytes.count {
            let digit = bytes[at] &- UInt8(ascii: "0")
            if digit > 9 { break }
            let (product, overflowed) = value.multipliedReportingOverflow(by: 10)
            let (sum, overflowedToo) = product.addingReportingOverflow(Int64(digit))
            if overflowed || overflowedToo { return nil }
            value = sum
            at &+= 1
        }
        guard at > digitsStart, at &+ 1 < bytes.count, bytes[at] == UInt8(ascii: "\r") else { return nil }
        position = at &+ 2
        return (type, negative ? 0 &- value : value)
    }

    /// The bytes of a string or error of any kind; nil for null and for what is no string, which is left where it is.
    mutating func text() -> Bytes? {
        guard position < bytes.count else { return nil }
        switch bytes[position] {
        case UInt8(ascii: "+"), UInt8(ascii: "-"):
            let start = position &+ 1
            guard let end = lineEnd(from: start) else { return nil }
            position = end &+ 2
            return Bytes(rebasing: bytes[start..<end])
        case UInt8(ascii: "$"), UInt8(ascii: "="), UInt8(ascii: "!"):
            let before = position
            guard let (type, length) = header(), length >= 0, length <= Int64(bytes.count &- position) else {
                position = before
                return nil
            }
            var start = position
            let end = position &+ Int(length)
            position = min(end &+ 2, bytes.count)
            if type == UInt8(ascii: "="), length >= 4 { start &+= 4 }
            return Bytes(rebasing: bytes[start..<end])
        default:
            return nil
        }
    }

    /// Passes over one element with all it contains; false if the bytes end before it.
    mutating func skip() -> Bool {
        var pending: Int64 = 1
        while pending > 0 {
            guard position < bytes.count else { return false }
            pending &-= 1
            switch bytes[position] {
            case UInt8(ascii: "$"), UInt8(ascii: "="), UInt8(ascii: "!"):
                guard let (_, length) = header() else { return false }
                if length >= 0 {
                    guard length <= Int64(bytes.count &- position) else { return false }
                    position = min(position &+ Int(length) &+ 2, bytes.count)
                }
            case UInt8(ascii: "*"), UInt8(ascii: "~"), UInt8(ascii: ">"):
                guard let (_, count) = header(), count <= Int64(bytes.count) else { return false }
                pending &+= max(count, 0)
            case UInt8(ascii: "%"):
                guard let (_, count) = header(), count <= Int64(bytes.count) else { return false }
                pending &+= max(count, 0) &* 2
            case UInt8(ascii: "|"):
                guard let (_, count) = header(), count <= Int64(bytes.count) else { return false }
                pending &+= max(count, 0) &* 2 &+ 1
            default:
                guard let end = lineEnd(from: position) else { return false }
                position = end &+ 2
            }
        }
        return true
    }

    private func lineEnd(from start: Int) -> Int? {
        var at = start
        while at &+ 1 < bytes.count {
            if bytes[at] == UInt8(ascii: "\r"), bytes[at &+ 1] == UInt8(ascii: "\n") { return at }
            at &+= 1
        }
        return nil
    }
}

/// What a pub/sub reply, array or push, is about.
struct PubSubReply {
    /// The first element: "message", "subscribe", "invalidate" …
    let kind: Bytes
    /// Behind it.
    var reader: ReplyReader
    let elements: Int64

    @inline(__always)
    init?(_ bytes: Bytes) {
        var reader = ReplyReader(bytes)
        guard let (type, count) = reader.header(),
            type == UInt8(ascii: ">") || type == UInt8(ascii: "*"), count >= 1, let kind = reader.text()
        else { return nil }
        self.kind = kind
        self.reader = reader
        elements = count
    }

    /// The last of the three elements of a confirmation: how many subscriptions there are.
    var subscriptionCount: Int64? {
        var reader = reader
        guard elements == 3, reader.skip(), let (type, number) = reader.header(), type == UInt8(ascii: ":") else {
            return nil
        }
        return number
    }
}

extension Bytes {
    @inline(__always)
    func equals(_ text: StaticString) -> Bool {
        guard count == text.utf8CodeUnitCount else { return false }
        guard let base = baseAddress else { return true }
        return memcmp(base, text.utf8Start, count) == 0
    }
}
