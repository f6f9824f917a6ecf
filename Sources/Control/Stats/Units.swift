/// Numbers as people read them, in a fixed width's worth of digits.
enum Units {
    /// 1234567 as "1,234,567".
    static func count(_ value: UInt64) -> String {
        var out = ""
        for (index, digit) in String(value).reversed().enumerated() {
            if index > 0, index.isMultiple(of: 3) { out.append(",") }
            out.append(digit)
        }
        return String(out.reversed())
    }

    /// "83.4 us", "1.25 ms"; "-" for none.
    static func duration(seconds: Double) -> String {
        if !(seconds > 0) { return "-" }
        let ns = seconds * 1e9
        if ns < 1e3 { return "\(digits(ns)) ns" }
        if ns < 1e6 { return "\(digits(ns / 1e3)) us" }
        if ns < 1e9 { return "\(digits(ns / 1e6)) ms" }
        return "\(digits(ns / 1e9)) s"
    }

    /// "48.0 MiB".
    static func bytes(_ value: UInt64) -> String {
        let value = Double(value)
        if value < 1024 { return "\(Int(value)) B" }
        if value < 1024 * 1024 { return "\(digits(value / 1024)) KiB" }
        if value < 1024 * 1024 * 1024 { return "\(digits(value / 1024 / 1024)) MiB" }
        return "\(digits(value / 1024 / 1024 / 1024)) GiB"
    }

    /// "2d 3h", "4m 05s".
    static func uptime(seconds: Double) -> String {
        let all = UInt64(max(0, min(seconds, 1e12)))
        let (days, hours, minutes, rest) = (all / 86_400, all / 3_600 % 24, all / 60 % 60, all % 60)
        if days > 0 { return "\(days)d \(hours)h" }
        if hours > 0 { return "\(hours)h \(minutes < 10 ? "0" : "")\(minutes)m" }
        if minutes > 0 { return "\(minutes)m \(rest < 10 ? "0" : "")\(rest)s" }
        return "\(rest)s"
    }

    /// Rounded down, so that 100% means all: "99.9%".
    static func percent(_ part: UInt64, of whole: UInt64) -> String {
        if whole == 0 { return "-" }
        return fixed((Double(part) / Double(whole) * 1_000).rounded(.down) / 10, decimals: 1) + "%"
    }

    /// Three digits: 1.23, 12.3, 123, 1234.
    static func digits(_ value: Double) -> String {
        if value < 9.995 { return fixed(value, decimals: 2) }
        if value < 99.95 { return fixed(value, decimals: 1) }
        return fixed(value, decimals: 0)
    }

    private static func fixed(_ value: Double, decimals: Int) -> String {
        let factor: Double = [1, 10, 100][decimals]
        let scaled = UInt64(max(0, min((value * factor).rounded(), 1e15)))
        if decimals == 0 { return String(scaled) }
        let fraction = String(scaled % UInt64(factor))
        return "\(scaled / UInt64(factor)).\(String(repeating: "0", count: decimals - fraction.count))\(fraction)"
    }
}
