import CFastPath

extension MetricTable {
    /// The C table, copied. Any thread.
    static let fastPath: MetricTable = {
        var count: UInt32 = 0
        var rows: [Row] = []
        if let table = fp_metric_table(&count) {
            rows = UnsafeBufferPointer(start: table, count: Int(count)).map { metric in
                Row(
                    name: String(cString: metric.name), labels: String(cString: metric.labels),
                    help: String(cString: metric.help), kind: Kind(metric.kind), offset: Int(metric.offset),
                    isNanoseconds: metric.kind == .FP_METRIC_SECONDS)
            }
        }
        let bounds = (0..<UInt32(FP_HISTOGRAM_BUCKETS)).map { fp_histogram_bound($0) }
        let outcomes = (0..<UInt32(FP_OUTCOME_COUNT)).compactMap { fp_outcome_name($0).map { String(cString: $0) } }
        return MetricTable(
            rows: rows, valueCount: Int(fp_stats_count()), bucketBoundsNs: bounds, outcomes: outcomes)
    }()
}

extension MetricTable.Kind {
    fileprivate init(_ kind: fp_metric_kind) {
        switch kind {
        case .FP_METRIC_COUNTER: self = .counter
        case .FP_METRIC_GAUGE, .FP_METRIC_SECONDS: self = .gauge
        case .FP_METRIC_HISTOGRAM: self = .histogram
        }
    }
}
