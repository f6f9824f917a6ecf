/// Sizes as people write them: b, kb, mb, gb as in Redis, and Ki, Mi, Gi as in Kubernetes; all are powers of 1024.
enum ByteSize {
    enum Parsed: Equatable {
        case bytes(UInt64)
        case unitMissing
        case malformed
    }

    private static let units: [(name: String, shift: UInt64)] = [
        ("b", 0), ("kb", 10), ("mb", 20), ("gb", 30),
        ("k", 10), ("m", 20), ("g", 30),
        ("ki", 10), ("mi", 20), ("gi", 30),
        ("kib", 10), ("mib", 20), ("gib", 30),
    ]

    /// Upper or lower case; a blank may stand before the unit; decimals may ("1.5gb") if whole bytes come out.
    static func parse(_ text: String) -> Parsed {
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let unit = text.dropFirst(digits.count).drop { $0 == " " }.lowercased()
        guard let value = Decimal3(digits) else { return .malformed }
        if unit.isEmpty { return .unitMissing }
        guard let shift = units.first(where: { $0.name == unit })?.shift,
            let bytes = value.times(1 << shift)
        else { return .malformed }
        return .bytes(bytes)
    }

    /// The largest unit in which it is whole: "128mb", "1536kb".
    static func show(_ bytes: UInt64) -> String {
        for (name, shift) in [("gb", 30), ("mb", 20), ("kb", 10)] as [(String, UInt64)]
        where bytes > 0 && bytes & ((1 << shift) - 1) == 0 {
            return "\(bytes >> shift)\(name)"
        }
        return "\(bytes)b"
    }
}
