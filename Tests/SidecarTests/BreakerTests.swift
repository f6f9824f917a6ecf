import Testing

@testable import Sidecar

@Suite("The breaker")
struct BreakerTests {
    private let ms: UInt64 = 1_000_000

    /// Open since `atMs`.
    private func open(atMs: UInt64) -> Breaker {
        var breaker = Breaker()
        breaker.failed((atMs - 200) * ms)
        for _ in 1..<Breaker.failuresMax { breaker.failed(atMs * ms) }
        return breaker
    }

    @Test("opens when many reads in a row were late, and not when one between them came in time")
    func opens() {
        var breaker = Breaker()
        for at in 1..<UInt64(Breaker.failuresMax) { breaker.failed(at * 50 * ms) }
        #expect(!breaker.isOpen)
        breaker.succeeded()
        for at in 1..<UInt64(Breaker.failuresMax) { breaker.failed((1_000 + at * 50) * ms) }
        #expect(!breaker.isOpen && breaker.admits(0))
        breaker.failed(2_000 * ms)
        #expect(breaker.isOpen && breaker.opened == 1 && !breaker.admits(2_001 * ms))
    }

    @Test("does not open for reads that were late together")
    func together() {
        var breaker = Breaker()
        for _ in 0..<500 { breaker.failed(100 * ms) }
        #expect(!breaker.isOpen)
        breaker.failed(300 * ms)
        #expect(breaker.isOpen)
    }

    @Test("lets single reads through, ever more seldom, until one is answered in time")
    func probes() {
        var breaker = open(atMs: 1_000)
        #expect(!breaker.admits(1_099 * ms) && breaker.admits(1_100 * ms) && !breaker.admits(1_101 * ms))
        breaker.failed(1_150 * ms)
        #expect(!breaker.admits(1_349 * ms) && breaker.admits(1_350 * ms))
        for at in [UInt64(1_400), 3_000, 5_000, 7_000] { breaker.failed(at * ms) }
        #expect(!breaker.admits(7_999 * ms) && breaker.admits(8_000 * ms))
        breaker.succeeded()
        #expect(!breaker.isOpen && breaker.admits(8_001 * ms) && breaker.admits(8_001 * ms))
        #expect(breaker.opened == 1)
    }

    @Test("tries at once when what was asked before it opened is answered after all, and not for what it let through")
    func late() {
        var breaker = open(atMs: 1_000)
        breaker.late(sentNs: 900 * ms, 1_020 * ms)
        #expect(breaker.admits(1_020 * ms) && !breaker.admits(1_021 * ms))
        breaker.failed(1_070 * ms)
        breaker.late(sentNs: 1_020 * ms, 1_080 * ms)
        #expect(!breaker.admits(1_081 * ms) && breaker.isOpen)
    }
}
