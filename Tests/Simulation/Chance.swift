/// Chance — everything that a seed decides comes from here, so a seed replays exactly. SplitMix64 (Steele, Lea, Flood:
/// Fast splittable pseudorandom number generators, 2014).
struct Chance {
    private var state: UInt64

    /// Mixed, for seeds next to each other would else give the same numbers, one place on.
    init(seed: UInt64) {
        state = seed ^ 0x1234_5678_9ABC_DEF1
        state = next()
    }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// 0..<bound
    mutating func below(_ bound: Int) -> Int { Int(next() >> 33) % bound }
    mutating func below(_ bound: UInt64) -> UInt64 { (next() >> 8) % bound }
    /// Nanoseconds.
    mutating func between(_ low: UInt64, _ high: UInt64) -> UInt64 { low + below(high - low + 1) }
    mutating func oneIn(_ n: Int) -> Bool { below(n) == 0 }
    mutating func pick<T>(_ items: [T]) -> T { items[below(items.count)] }
}

let millisecond: UInt64 = 1_000_000
let second: UInt64 = 1_000_000_000
