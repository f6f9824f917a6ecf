/// Backoff — how long to wait before the next attempt to connect: 10 ms, doubled up to 1 s, each time off by up to a
/// fifth, so that a thousand pods do not knock at the same instant. Pure: its chance is a seeded generator.
struct Backoff {
    static let firstNs: UInt64 = 10_000_000
    static let lastNs: UInt64 = 1_000_000_000

    private var nextNs = Backoff.firstNs
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        let base = nextNs
        nextNs = min(base &* 2, Self.lastNs)
        return base / 10 &* 8 &+ random() % (base / 10 &* 4 &+ 1)
    }

    /// Any time below this.
    mutating func next(upTo ns: UInt64) -> UInt64 { random() % ns }

    mutating func reset() { nextNs = Self.firstNs }

    /* splitmix64. */
    private mutating func random() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
