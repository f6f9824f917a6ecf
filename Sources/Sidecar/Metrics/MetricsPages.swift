/// What the metrics page answers: /metrics, /stats, /healthz, /readyz.
struct MetricsPages: HTTPPages {
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

    var methods: String { "GET, HEAD" }

    /// HEAD is a GET whose body the server leaves out.
    func page(_ method: String, _ path: String, query: String) async -> HTTPPage {
        guard method == "GET" || method == "HEAD" else { return .text("only GET and HEAD\n", status: 405) }
        return switch path {
        case "/metrics": await numbers(PrometheusText.contentType, PrometheusText.render)
        case "/stats": await numbers(StatsJSON.contentType, StatsJSON.render)
        case "/healthz": health()
        case "/readyz": await readiness()
        case "/":
            HTTPPage(
                status: 200, contentType: HTTPPage.plain,
                body: "ferrite sidecar \(facts.version)\n/metrics  numbers for Prometheus\n/stats    the same as JSON\n"
                    + "/healthz  is the loop alive\n/readyz   does it listen\n")
        default: HTTPPage(status: 404, contentType: HTTPPage.plain, body: "not found; see /\n")
        }
    }

    private func readiness() async -> HTTPPage {
        if isDraining() { return HTTPPage(status: 503, contentType: HTTPPage.plain, body: "draining\n") }
        if await waitsForPrefetch() { return HTTPPage(status: 503, contentType: HTTPPage.plain, body: "prefetching\n") }
        return HTTPPage(status: 200, contentType: HTTPPage.plain, body: "ready\n")
    }

    /// With ready_after_prefetch; not for long, whatever becomes of it: an upstream that is away must not keep pods out.
    private func waitsForPrefetch() async -> Bool {
        guard facts.config.config.prefetch.readyAfter,
            MonotonicClock.nowNs() &- startedNs < Self.readyNsMax
        else { return false }
        let prefetch = await stats().upstream.prefetch
        return prefetch.isOn && (prefetch.state == .waiting || prefetch.state == .running)
    }

    private static let readyNsMax: UInt64 = 10_000_000_000
    /// Not by the wall clock, which may be set.
    private let startedNs = MonotonicClock.nowNs()

    private func health() -> HTTPPage {
        if let stuck = stuckNs() {
            return HTTPPage(
                status: 503, contentType: HTTPPage.plain,
                body: "the loop has not ended a turn for \(stuck / 1_000_000) ms\n")
        }
        return HTTPPage(status: 200, contentType: HTTPPage.plain, body: "ok\n")
    }

    /// A stuck loop would not answer: say so instead of waiting.
    private func numbers(_ contentType: String, _ render: (SidecarReport) -> String) async -> HTTPPage {
        if stuckNs() != nil { return health() }
        let report = SidecarReport(
            snapshot: await stats(), table: table, process: .read(startSeconds: facts.startSeconds), facts: facts,
            nowSeconds: nowSeconds(), logLinesDropped: logLinesDropped())
        return HTTPPage(status: 200, contentType: contentType, body: render(report))
    }
}
