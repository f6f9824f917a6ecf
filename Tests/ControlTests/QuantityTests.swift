import Testing

@testable import Control

@Suite("Kubernetes' quantities")
struct QuantityTests {
    @Test("Amounts are exact, and rounded up as Kubernetes rounds")
    func amounts() {
        let amounts: [(String, Int128)] = [
            ("1", 1_000), ("0.5", 500), (".5", 500), ("5.", 5_000), ("500m", 500), ("1k", 1_000_000),
            ("1Ki", 1_024_000),
            ("128Mi", 134_217_728_000), ("1.5Gi", 1_610_612_736_000), ("1e3", 1_000_000), ("1E-2", 10), ("1u", 1),
            ("1500u", 2),
            ("1n", 1), ("0", 0), ("1Ei", 1_000 << 60),
        ]
        for (text, thousandths) in amounts { #expect(Quantity(text)?.thousandths == thousandths, "\(text)") }
        #expect(Quantity("1Gi") == Quantity("1024Mi"))
    }

    @Test(
        "What is none is refused",
        arguments: ["", "Mi", ".", "1.2.3", "1 Mi", "-1", "1mi", "1KB", "1e", "1e99", "2Ei", "٣", "0x10"])
    func none(_ text: String) {
        #expect(Quantity(text) == nil)
    }

    @Test("Sums are written in whole units, or thousandths")
    func sums() throws {
        let half = try #require(Quantity("500m"))
        #expect((half + half).text == "1" && (half + half + half).text == "1500m" && (half - half - half).text == "0")
    }
}
