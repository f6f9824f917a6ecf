/// A decimal number with up to three decimals, kept exactly: 1.5 is 1500 thousandths.
struct Decimal3 {
    private let thousandths: UInt64

    /// Digits with at most one point between them ("5", "0.25"); nil otherwise or when too large.
    init?(_ text: Substring) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), parts.allSatisfy({ !$0.isEmpty && $0.utf8.allSatisfy(Self.isDigit) }),
            let whole = UInt64(parts[0])
        else { return nil }
        var decimals: UInt64 = 0
        if parts.count == 2 {
            guard parts[1].count <= 3, let value = UInt64(parts[1] + String(repeating: "0", count: 3 - parts[1].count))
            else { return nil }
            decimals = value
        }
        let (scaled, overflow) = whole.multipliedReportingOverflow(by: 1_000)
        let (sum, overflowSum) = scaled.addingReportingOverflow(decimals)
        if overflow || overflowSum { return nil }
        thousandths = sum
    }

    /// Times a factor; nil when it overflows or the product is not whole.
    func times(_ factor: UInt64) -> UInt64? {
        let (product, overflow) = thousandths.multipliedReportingOverflow(by: factor)
        if overflow || !product.isMultiple(of: 1_000) { return nil }
        return product / 1_000
    }

    private static func isDigit(_ byte: UInt8) -> Bool { byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }
}
