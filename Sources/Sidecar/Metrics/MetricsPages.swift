/// What the metrics page answers: /metrics, /stats, /healthz, /readyz. Knows nothing of sockets.
struct MetricsPages: Sendable {
    struct Page: Sendable, Equatable {
        var status: Int
        var contentType: String
        var body: String
    }

    var table: MetricTable
    var facts: SidecarFacts
    /// Asks the loop; comes back between two turns.
    var stats: @Sendable () async -> StatsSnapshot
    /// How long the loop has been stuck in a turn, nil if it is well.
    var stuckNs: @Sendable () -> UInt64?
    var isDraining: @Sendable () -> Bool
    var logLinesDropped: @Sendable () -> UInt64
    /// Wall clock, Unix time.
    var nowSeconds: @Sendable () -> Double

    private static let plain = "text/plain; charset=utf-8"

    /// GET only; HEAD is a GET whose body the server leaves out.
    func page(_ path: String) async -> Page {
        switch path {
        case "/metrics": await numbers(PrometheusText.contentType, PrometheusText.render)
        case "/stats": await numbers(StatsJSON.contentType, StatsJSON.render)
        case "/healthz": health()
        case "/readyz":
            isDraining()
                ? Page(status: 503, contentType: Self.plain, body: "draining\n")
                : Page(status: 200, contentType: Self.plain, body: "ready\n")
        case "/":
            Page(
                status: 200, contentType: Self.plain,
                body: "ferrite sidecar \(facts.version)\n/metrics  numbers for Prometheus\n/stats    the same as JSON\n"
                    + "/healthz  is the loop alive\n/readyz   does it listen\n")
        default: Page(status: 404, contentType: Self.plain, body: "not found; see /\n")
        }
    }

    private func health() -> Page {
        if let stuck = stuckNs() {
            return Page(
                status: 503, contentType: Self.plain,
                body: "the loop has not ended a turn for \(stuck / 1_000_000) ms\n")
        }
        return Page(status: 200, contentType: Self.plain, body: "ok\n")
    }

    /// A stuck loop would not answer: say so instead of waiting.
    private func numbers(_ contentType: String, _ render: (SidecarReport) -> String) async -> Page {
        if stuckNs() != nil { return health() }
        let report = SidecarReport(
            snapshot: await stats(), table: table, process: .read(startSeconds: facts.startSeconds), facts: facts,
            nowSeconds: nowSeconds(), logLinesDropped: logLinesDropped())
        return Page(status: 200, contentType: contentType, body: render(report))
    }
}
