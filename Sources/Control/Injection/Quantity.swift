/// A Kubernetes quantity ("128Mi", "0.5", "250m", "1e3") as its text and its exact value in thousandths, rounded up as
/// Kubernetes rounds. Grammar: apimachinery, pkg/api/resource, Quantity.
struct Quantity: Equatable, Comparable, Sendable {
    var text: String
    /// 1000 is one byte, or one core.
    var thousandths: Int128

    /// nil where the text is no quantity, is negative, or is beyond an exbibyte.
    init?(_ text: String) {
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let parts = digits.split(separator: ".", omittingEmptySubsequences: false)
        guard digits.utf8.count <= 30, parts.count <= 2, parts.contains(where: { !$0.isEmpty }),
            let scale = Self.scale(of: text[digits.endIndex...])
        else { return nil }
        let fraction = parts.count == 2 ? parts[1] : ""
        guard fraction.count <= 12, let all = Int128(parts[0] + fraction) else { return nil }
        var divisor: Int128 = 1
        for _ in fraction { divisor *= 10 }
        let (numerator, tooLarge) = all.multipliedReportingOverflow(by: scale.numerator)
        guard !tooLarge, divisor <= Int128.max / scale.denominator else { return nil }
        divisor *= scale.denominator
        let value = numerator / divisor + (numerator % divisor == 0 ? 0 : 1)
        guard value <= 1000 << 60 else { return nil }
        self.text = text
        thousandths = value
    }

    static func < (one: Quantity, other: Quantity) -> Bool { one.thousandths < other.thousandths }
    /// "1Gi" and "1024Mi" are the same amount.
    static func == (one: Quantity, other: Quantity) -> Bool { one.thousandths == other.thousandths }

    /// The sum, in the canonical form of its whole units or thousandths: "1500m", "201326592".
    static func + (one: Quantity, other: Quantity) -> Quantity {
        Quantity(thousandths: one.thousandths + other.thousandths)
    }
    static func - (one: Quantity, other: Quantity) -> Quantity {
        Quantity(thousandths: max(0, one.thousandths - other.thousandths))
    }

    static func mebibytes(_ count: Int128) -> Quantity {
        Quantity(text: "\(count)Mi", thousandths: count * (1000 << 20))
    }
    static func millicores(_ count: Int128) -> Quantity { Quantity(text: "\(count)m", thousandths: count) }

    private init(text: String, thousandths: Int128) {
        self.text = text
        self.thousandths = thousandths
    }

    private init(thousandths: Int128) {
        self.thousandths = thousandths
        text = thousandths % 1000 == 0 ? String(thousandths / 1000) : "\(thousandths)m"
    }

    /// What a suffix multiplies with, in thousandths.
    private static func scale(of suffix: Substring) -> (numerator: Int128, denominator: Int128)? {
        switch suffix {
        case "n": (1, 1_000_000)
        case "u": (1, 1_000)
        case "m": (1, 1)
        case "": (1_000, 1)
        case "k": (1_000_000, 1)
        case "M": (1_000_000_000, 1)
        case "G": (1_000_000_000_000, 1)
        case "T": (1_000_000_000_000_000, 1)
        case "P": (1_000_000_000_000_000_000, 1)
        case "E": (1_000_000_000_000_000_000_000, 1)
        case "Ki": (1_000 << 10, 1)
        case "Mi": (1_000 << 20, 1)
        case "Gi": (1_000 << 30, 1)
        case "Ti": (1_000 << 40, 1)
        case "Pi": (1_000 << 50, 1)
        case "Ei": (1_000 << 60, 1)
        default: exponent(of: suffix)
        }
    }

    /// "e3", "E-2".
    private static func exponent(of suffix: Substring) -> (numerator: Int128, denominator: Int128)? {
        guard let mark = suffix.first, mark == "e" || mark == "E", let power = Int(suffix.dropFirst()),
            (-18...18).contains(power)
        else { return nil }
        var factor: Int128 = 1
        for _ in 0..<abs(power) { factor *= 10 }
        return power < 0 ? (1_000, factor) : (1_000 * factor, 1)
    }
}
