/// Requests as they come in, and what is complete of them.
struct CommandReader {
    private var bytes: [UInt8] = []
    private var start = 0

    enum Outcome {
        case partial
        case malformed
        case command([[UInt8]])
    }

    mutating func append(_ more: some Sequence<UInt8>) {
        if start > 4_096 {
            bytes.removeFirst(start)
            start = 0
        }
        bytes.append(contentsOf: more)
    }

    private func number(_ at: inout Int, _ type: UInt8) -> Int?? {
        guard at < bytes.count else { return .some(nil) }
        guard bytes[at] == type else { return nil }
        var end = at + 1
        var value = 0
        while end < bytes.count, bytes[end] != 13 {
            guard bytes[end] >= 48, bytes[end] <= 57 else { return nil }
            value = value * 10 + Int(bytes[end] - 48)
            end += 1
        }
        guard end + 1 < bytes.count else { return .some(nil) }
        at = end + 2
        return value
    }

    mutating func next() -> Outcome {
        var at = start
        guard let head = number(&at, UInt8(ascii: "*")) else { return .malformed }
        guard let count = head else { return .partial }
        var words: [[UInt8]] = []
        words.reserveCapacity(count)
        for _ in 0..<count {
            guard let size = number(&at, UInt8(ascii: "$")) else { return .malformed }
            guard let length = size, at + length + 2 <= bytes.count else { return .partial }
            words.append(Array(bytes[at..<at + length]))
            at += length + 2
        }
        start = at
        if start == bytes.count {
            bytes.removeAll(keepingCapacity: true)
            start = 0
        }
        return .command(words)
    }
}
