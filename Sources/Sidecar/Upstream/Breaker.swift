/// Breaker — stops asking an upstream that does not answer reads in time.
///
/// A server that takes longer than read_timeout for everything is asked for ever more: each reader waits in vain, and its
/// read is carried out all the same. So when many reads in a row have not been answered in time the breaker opens: reads
/// get their stale copy or an error at once, and single reads are let through, ever more seldom, until one is answered in
/// time (Nygard, Release It!, 2007). A pure value: told the time, asked for leave.
struct Breaker: Equatable {
    /// In a row, and not answered in time.
    static let failuresMax = 20
    private static let firstProbeNs: UInt64 = 100_000_000
    private static let lastProbeNs: UInt64 = 1_000_000_000

    private var failures = 0
    private var probeAtNs: UInt64 = 0
    private var intervalNs = Self.firstProbeNs
    /// Times it has opened.
    private(set) var opened: UInt64 = 0

    var isOpen: Bool { failures >= Self.failuresMax }

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
        let wasOpen = isOpen
        failures = min(failures + 1, Self.failuresMax)
        guard isOpen else { return }
        intervalNs = wasOpen ? min(intervalNs &* 2, Self.lastProbeNs) : Self.firstProbeNs
        probeAtNs = nowNs &+ intervalNs
        if !wasOpen { opened &+= 1 }
    }

    /// A read was answered within read_timeout.
    @inline(__always)
    mutating func succeeded() { failures = 0 }
}
