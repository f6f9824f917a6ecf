/// How often a command was answered.
struct CommandCalls: Sendable, Equatable {
    /// "get", "config|get", as in Redis' commandstats.
    var name: String
    /// "string", "sorted-set": the group in COMMAND DOCS.
    var family: String
    /// By `MetricTable.outcomes`.
    var outcomes: [UInt64]

    /// With an error; the table's last outcome.
    var failed: UInt64 { outcomes.last ?? 0 }
    var answered: UInt64 { outcomes.dropLast().reduce(0, &+) }
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
    /// Sums of `calls`, in the order of the families' names.
    var families: [(family: String, outcomes: [UInt64])] {
        var sums: [String: [UInt64]] = [:]
        for call in calls {
            sums[call.family] = sums[call.family].map { zip($0, call.outcomes).map(&+) } ?? call.outcomes
        }
        return sums.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }
    /// Monotonic nanoseconds on the engine's clock.
    var takenAtNs: UInt64
}
