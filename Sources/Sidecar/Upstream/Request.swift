/// Request — reading an application's command where Swift must know more than C tells with the event. C has parsed it
/// already; what does not fit here gives nil, and nothing can trap.
struct Request {
    /// The arguments, the command's name first.
    let arguments: [String]

    /// At most `limit` arguments are read.
    init(_ bytes: Bytes, limit: Int = 16) {
        var arguments: [String] = []
        if bytes.first == UInt8(ascii: "*") {
            var reader = ReplyReader(bytes)
            let count = reader.header()?.number ?? 0
            while arguments.count < min(count, Int64(limit)), let argument = reader.text() {
                arguments.append(String(decoding: argument.prefix(64), as: UTF8.self))
            }
        } else {
            for word in Self.words(bytes) where arguments.count < limit {
                arguments.append(String(decoding: word.prefix(64), as: UTF8.self))
            }
        }
        self.arguments = arguments
    }

    /// How many arguments a request has, its name counted.
    static func argumentCount(_ bytes: Bytes) -> Int {
        if bytes.first == UInt8(ascii: "*") {
            var reader = ReplyReader(bytes)
            return Int(clamping: max(reader.header()?.number ?? 0, 0))
        }
        return words(bytes).count
    }

    /// The words of an inline request; quoted ones count as one word each.
    private static func words(_ bytes: Bytes) -> [Slice<Bytes>] {
        var words: [Slice<Bytes>] = []
        var start: Int?
        var quote: UInt8?
        var escaped = false
        for (index, byte) in bytes.enumerated() {
            let blank = byte == UInt8(ascii: " ") || (byte >= 9 && byte <= 13)
            if let open = quote {
                if escaped {
                    escaped = false
                } else if byte == UInt8(ascii: "\\") {
                    escaped = true
                } else if byte == open {
                    quote = nil
                }
            } else if blank {
                if let from = start { words.append(bytes[from..<index]) }
                start = nil
            } else {
                if start == nil { start = index }
                if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "'") { quote = byte }
            }
        }
        if let from = start { words.append(bytes[from..<bytes.count]) }
        return words
    }
}
