/// Breaker — stops asking an upstream that does not answer reads in time.
///
/// A server that takes longer than read_timeout for everything is asked for ever more: each reader waits in vain, and its
/// read is carried out all the same. So when many reads in a row, and not of one moment, have not been answered in time the
/// breaker opens: reads get their stale copy or an error at once, and single reads are let through, ever more seldom, until one is answered in
/// time (Nygard, Release It!, 2007). A pure value: told the time, asked for leave.
struct Breaker: Equatable {
    /// In a row, and not answered in time.
    static let failuresMax = 20
    /// Pipelined reads are late together: that is one observation.
    static let spanNs: UInt64 = 200_000_000
    private static let firstProbeNs: UInt64 = 100_000_000
    private static let lastProbeNs: UInt64 = 1_000_000_000

    private var failures = 0
    private var failingSinceNs: UInt64 = 0
    private var openedNs: UInt64 = 0
    private var probeAtNs: UInt64 = 0
    private var intervalNs = Self.firstProbeNs
    /// Times it has opened.
    private(set) var opened: UInt64 = 0

    private(set) var isOpen = false

    /// Whether a read may be sent. While open only one in an interval.
    @inline(__always)
    mutating func admits(_ nowNs: UInt64) -> Bool { !isOpen || admitsProbe(nowNs) }

    private mutating func admitsProbe(_ nowNs: UInt64) -> Bool {
        guard nowNs >= probeAtNs else { return false }
        probeAtNs = nowNs &+ intervalNs
        return true
    }

    /// A read was not answered within read_timeout.
    mutating func failed(_ nowNs: UInt64) {
        if failures == 0 { failingSinceNs = nowNs }
        failures = min(failures + 1, Self.failuresMax)
        if isOpen {
            intervalNs = min(intervalNs &* 2, Self.lastProbeNs)
        } else {
            guard failures == Self.failuresMax, nowNs &- failingSinceNs >= Self.spanNs else { return }
            isOpen = true
            openedNs = nowNs
            opened &+= 1
            intervalNs = Self.firstProbeNs
        }
        probeAtNs = nowNs &+ intervalNs
    }

    /// A read was answered when it had been given up. One that was sent before the breaker opened shows that the upstream goes on: whether it
    /// is in time again is tried at once.
    mutating func late(sentNs: UInt64, _ nowNs: UInt64) {
        if isOpen, sentNs < openedNs { probeAtNs = min(probeAtNs, nowNs) }
    }

    /// A read was answered before it was given up.
    @inline(__always)
    mutating func succeeded() {
        failures = 0
        isOpen = false
    }
}
