/// How often a command was answered, with an error or without.
struct CommandCalls: Sendable, Equatable {
    /// "get", "config|get", as in Redis' commandstats.
    var name: String
    var answered: UInt64
    var failed: UInt64
}

/// What the loop says about itself at one instant: the fast path's numbers and the state of the upstream.
///
/// Taken on the loop thread (`LoopHandle.stats()`), rendered anywhere. `values` has the layout of `MetricTable`.
struct StatsSnapshot: Sendable {
    /// One value a counter or gauge; a histogram takes its buckets' counts and then its sum in nanoseconds.
    var values: [UInt64]
    var upstream: UpstreamStatus
    /// Of the commands that came at all.
    var calls: [CommandCalls] = []
    /// Monotonic nanoseconds on the engine's clock.
    var takenAtNs: UInt64
}
