/// Durations as people write them: ms, s, m, h, or plain seconds. Whole milliseconds inside.
enum TimeSpan {
    private static let units: [(name: String, milliseconds: UInt64)] = [
        ("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("", 1_000),
    ]

    static func parse(_ text: String) -> UInt64? {
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let unit = text.dropFirst(digits.count).drop { $0 == " " }
        guard let value = Decimal3(digits), let each = units.first(where: { $0.name == unit })?.milliseconds else {
            return nil
        }
        return value.times(each)
    }

    /// A TOML decimal number; nil below zero and beyond what milliseconds hold.
    static func milliseconds(seconds: Double) -> UInt64? {
        let milliseconds = (seconds * 1_000).rounded()
        return UInt64(exactly: milliseconds)
    }

    /// The largest unit in which it is whole: "5s", "100ms"; "0s" for none.
    static func show(_ milliseconds: UInt64) -> String {
        if milliseconds == 0 { return "0s" }
        for (name, each) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] as [(String, UInt64)]
        where milliseconds.isMultiple(of: each) {
            return "\(milliseconds / each)\(name)"
        }
        return "\(milliseconds)ms"
    }
}
