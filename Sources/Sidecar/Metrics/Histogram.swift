/// A histogram of a snapshot, seen through its bucket bounds: counts, sum, percentiles.
struct Histogram: Sendable {
    let counts: ArraySlice<UInt64>
    let sumNs: UInt64
    /// Upper bounds in nanoseconds; `UInt64.max` for the last.
    let boundsNs: [UInt64]

    /// nil when the values are too short for the row: a table and a snapshot that do not belong together.
    init?(_ row: MetricTable.Row, of values: [UInt64], _ table: MetricTable) {
        let buckets = table.bucketBoundsNs.count
        guard row.kind == .histogram, row.offset >= 0, row.offset + buckets < values.count else { return nil }
        counts = values[row.offset..<row.offset + buckets]
        sumNs = values[row.offset + buckets]
        boundsNs = table.bucketBoundsNs
    }

    var count: UInt64 { counts.reduce(0, &+) }

    var meanNs: Double { count == 0 ? 0 : Double(sumNs) / Double(count) }

    /// The duration that `share` (0…1) of the observations stay within, evened out inside its bucket; 0 when there are
    /// none. The last bucket gives its lower bound.
    func percentileNs(_ share: Double) -> Double {
        let total = count
        guard total > 0 else { return 0 }
        let wanted = max(1, Double(total) * share)
        var below: UInt64 = 0
        var lowerNs: UInt64 = 0
        for (bound, count) in zip(boundsNs, counts) {
            if count > 0, Double(below) + Double(count) >= wanted {
                if bound == .max { return Double(lowerNs) }
                return Double(lowerNs) + Double(bound - lowerNs) * (wanted - Double(below)) / Double(count)
            }
            below &+= count
            lowerNs = bound
        }
        return Double(lowerNs)
    }
}
