/// Everything that the metrics page tells, gathered at one instant; the pages are views of it.
struct SidecarReport: Sendable {
    var snapshot: StatsSnapshot
    var table: MetricTable
    var process: ProcessNumbers
    var facts: SidecarFacts
    /// Wall clock, Unix time.
    var nowSeconds: Double
    var logLinesDropped: UInt64
}

/// What does not change after the start.
struct SidecarFacts: Sendable {
    var version: String
    var config: ResolvedConfig
    /// "127.0.0.1:6379", "/run/ferrite/sidecar.sock".
    var listeners: [String]
    /// "io_uring" or "epoll".
    var networkName: String
    /// Why it is that one.
    var networkReason: String
    /// Wall clock, Unix time.
    var startSeconds: Double
}
