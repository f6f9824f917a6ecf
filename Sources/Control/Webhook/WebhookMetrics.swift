import Foundation
import Synchronization

/// What the webhook has done, for Prometheus. Every label's values are known from the start, so none grows.
final class WebhookMetrics: Sendable {
    private struct State {
        var decisions: [String: UInt64]
        var refusals: [UInt: UInt64]
        var buckets = [UInt64](repeating: 0, count: WebhookMetrics.bounds.count + 1)
        var seconds = 0.0
        var loads = 0
        var failures = 0
        var notAfter: Date?
    }

    /// The decisions of reviews, by the names of `ferritectl inject`.
    static let decisions =
        ["injected"] + Decision.Reason.allCases.map(\.rawValue) + Decision.Refusal.allCases.map(\.rawValue)
        + AdmissionReview.otherDecisions
    private static let refusals: [UInt] = [400, 404, 405, 413, 415, 500, 503]
    /// Seconds.
    private static let bounds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5]

    private let startSeconds = Date().timeIntervalSince1970
    private let state = Mutex(
        State(
            decisions: Dictionary(uniqueKeysWithValues: decisions.map { ($0, 0) }),
            refusals: Dictionary(uniqueKeysWithValues: refusals.map { ($0, 0) })))

    func decided(_ decision: String, took: Duration) {
        let seconds = took / .seconds(1)
        state.withLock {
            $0.decisions[decision]? += 1
            $0.buckets[Self.bounds.firstIndex { seconds <= $0 } ?? Self.bounds.count] += 1
            $0.seconds += seconds
        }
    }

    func refused(_ code: UInt) { state.withLock { $0.refusals[code]? += 1 } }

    func certificateLoaded(notAfter: Date) {
        state.withLock {
            $0.loads += 1
            $0.notAfter = notAfter
        }
    }

    func certificateFailed() { state.withLock { $0.failures += 1 } }

    func page() -> String {
        let state = state.withLock { $0 }
        var text = ""
        func family(_ name: String, _ type: String, _ help: String, _ samples: [(String, String)]) {
            text += "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n"
            for (suffix, value) in samples { text += "\(name)\(suffix) \(value)\n" }
        }
        family(
            "ferrite_webhook_reviews_total", "counter", "AdmissionReviews answered, by what became of the pod.",
            Self.decisions.map { ("{decision=\"\($0)\"}", String(state.decisions[$0] ?? 0)) })
        family(
            "ferrite_webhook_refused_requests_total", "counter",
            "Requests that were no AdmissionReview, by HTTP status.",
            Self.refusals.map { ("{code=\"\($0)\"}", String(state.refusals[$0] ?? 0)) })
        var samples: [(String, String)] = []
        var count: UInt64 = 0
        for (index, bucket) in state.buckets.enumerated() {
            count += bucket
            let bound = index < Self.bounds.count ? String(Self.bounds[index]) : "+Inf"
            samples.append(("_bucket{le=\"\(bound)\"}", String(count)))
        }
        samples += [("_sum", String(state.seconds)), ("_count", String(count))]
        family(
            "ferrite_webhook_review_duration_seconds", "histogram",
            "From a whole request to its answer, without the network.", samples)
        family(
            "ferrite_webhook_certificate_loads_total", "counter",
            "Certificates read, at the start and whenever they changed; failed: the one before is still served.",
            [("{result=\"loaded\"}", String(state.loads)), ("{result=\"failed\"}", String(state.failures))])
        if let notAfter = state.notAfter {
            family(
                "ferrite_webhook_certificate_not_after_timestamp_seconds", "gauge",
                "When the certificate that is served ends.", [("", String(notAfter.timeIntervalSince1970))])
        }
        family(
            "ferrite_webhook_build_info", "gauge", "Always 1.", [("{version=\"\(Version.current)\"}", "1")])
        family(
            "process_start_time_seconds", "gauge", "When the process started.", [("", String(startSeconds))])
        return text
    }
}
