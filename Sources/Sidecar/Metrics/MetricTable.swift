/// The fast path's metrics as Swift values: a row says where in `StatsSnapshot.values` a metric lies and what it means.
///
/// Made once at start from the C table (`MetricTable.fastPath`); tests make their own.
struct MetricTable: Sendable {
    enum Kind: String, Sendable {
        case counter, gauge, histogram
    }

    struct Row: Sendable {
        /// As Prometheus shows it.
        var name: String
        /// `way="hit"`, or empty.
        var labels: String
        /// Empty for the second and further rows of a name.
        var help: String
        var kind: Kind
        /// Of its first value.
        var offset: Int
        /// Of a counter or gauge: shown as seconds.
        var isNanoseconds = false
    }

    var rows: [Row]
    /// How many values a snapshot has.
    var valueCount: Int
    /// Upper bounds of a histogram's buckets in nanoseconds; `UInt64.max` for the last.
    var bucketBoundsNs: [UInt64]
    /// How a command can be answered: "hit", …, and last "error".
    var outcomes: [String]
}
