import Testing

@testable import Sidecar

@Suite("The breaker")
struct BreakerTests {
    private let ms: UInt64 = 1_000_000

    @Test("opens when many reads in a row were late, and not when one between them came in time")
    func opens() {
        var breaker = Breaker()
        for _ in 0..<Breaker.failuresMax - 1 { breaker.failed(0) }
        #expect(!breaker.isOpen)
        breaker.succeeded()
        for _ in 0..<Breaker.failuresMax - 1 { breaker.failed(0) }
        #expect(!breaker.isOpen && breaker.admits(0))
        breaker.failed(0)
        #expect(breaker.isOpen && breaker.opened == 1 && !breaker.admits(0))
    }

    @Test("lets single reads through, ever more seldom, until one is answered in time")
    func probes() {
        var breaker = Breaker()
        for _ in 0..<Breaker.failuresMax { breaker.failed(0) }
        #expect(!breaker.admits(99 * ms) && breaker.admits(100 * ms) && !breaker.admits(101 * ms))
        breaker.failed(150 * ms)
        #expect(!breaker.admits(349 * ms) && breaker.admits(350 * ms))
        for at in [UInt64(400), 2_000, 4_000, 6_000] { breaker.failed(at * ms) }
        #expect(!breaker.admits(6_999 * ms) && breaker.admits(7_000 * ms))
        breaker.succeeded()
        #expect(!breaker.isOpen && breaker.admits(7_001 * ms) && breaker.admits(7_001 * ms))
        #expect(breaker.opened == 1)
    }
}
