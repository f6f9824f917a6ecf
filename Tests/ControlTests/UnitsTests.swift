import Testing

@testable import Control

@Suite("numbers for people")
struct UnitsTests {
    @Test("counts, durations, bytes, shares and times read well")
    func units() {
        #expect([0, 999, 1_000, 1_234_567].map(Units.count) == ["0", "999", "1,000", "1,234,567"])
        #expect(Units.count(.max) == "18,446,744,073,709,551,615")
        #expect(
            [0, 2.56e-7, 8.34e-5, 1.25e-3, 0.9999, 12.34].map(Units.duration) == [
                "-", "256 ns", "83.4 us", "1.25 ms", "1000 ms", "12.3 s",
            ])
        #expect(
            [0, 1023, 1536, 50_331_648, 1 << 30].map(Units.bytes) == [
                "0 B", "1023 B", "1.50 KiB", "48.0 MiB", "1.00 GiB",
            ])
        #expect(Units.percent(999, of: 1_000) == "99.9%")
        #expect(Units.percent(99_999, of: 100_000) == "99.9%")
        #expect(Units.percent(1, of: 1) == "100.0%")
        #expect(Units.percent(0, of: 0) == "-")
        #expect([0, 59, 65, 3_725, 90_000].map(Units.uptime) == ["0s", "59s", "1m 05s", "1h 02m", "1d 1h"])
        #expect(Units.duration(seconds: .nan) == "-")
        #expect(Units.uptime(seconds: .infinity).hasSuffix("h"))
    }
}
