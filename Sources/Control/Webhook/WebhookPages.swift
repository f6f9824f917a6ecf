import Foundation
import NIOCore
import NIOFoundationCompat
import NIOHTTP1

/// What the API server is answered: POST /mutate takes an AdmissionReview.
struct MutatePage: HTTPEndpoint {
    let admission: AdmissionReview
    let metrics: WebhookMetrics

    /// What an API server takes itself; etcd holds half of it.
    let bodyBytesMax = 3 << 20

    func refused(_ status: HTTPResponseStatus) { metrics.refused(status.code) }

    func reply(to request: HTTPRequest) -> HTTPReply {
        let started = ContinuousClock.now
        guard request.path == "/mutate" else { return refuse(.notFound, "there is /mutate here") }
        guard request.method == .POST else { return refuse(.methodNotAllowed, "/mutate takes POST") }
        guard Self.isJSON(request.contentType) else {
            return refuse(.unsupportedMediaType, "/mutate takes Content-Type: application/json")
        }
        switch admission.answer(Data(buffer: request.body)) {
        case .malformed(let sentence): return refuse(.badRequest, sentence)
        case .review(let review, let decision):
            guard let bytes = try? JSONEncoder().encode(review) else {
                return refuse(.internalServerError, "the answer cannot be written")
            }
            metrics.decided(decision, took: ContinuousClock.now - started)
            return HTTPReply(status: .ok, contentType: "application/json", body: ByteBuffer(data: bytes))
        }
    }

    private func refuse(_ status: HTTPResponseStatus, _ sentence: String) -> HTTPReply {
        metrics.refused(status.code)
        return .text("ferritectl webhook: \(sentence)\n", status)
    }

    private static func isJSON(_ contentType: String?) -> Bool {
        let type = contentType?.prefix { $0 != ";" }.trimmingCharacters(in: .whitespaces)
        return type?.lowercased() == "application/json"
    }
}

/// What kubelet and Prometheus ask, in plain HTTP.
struct HealthPage: HTTPEndpoint {
    let metrics: WebhookMetrics
    /// Nil: ready. Otherwise why it is not.
    let notReady: @Sendable () -> String?

    let bodyBytesMax = 4096

    func reply(to request: HTTPRequest) -> HTTPReply {
        guard request.method == .GET || request.method == .HEAD else { return .text("GET, HEAD\n", .methodNotAllowed) }
        switch request.path {
        case "/healthz", "/livez": return .text("ok\n")
        case "/readyz":
            if let reason = notReady() { return .text(reason + "\n", .serviceUnavailable) }
            return .text("ok\n")
        case "/metrics":
            return HTTPReply(
                status: .ok, contentType: "text/plain; version=0.0.4; charset=utf-8",
                body: ByteBuffer(string: metrics.page()))
        default: return .text("there are /healthz, /readyz and /metrics here\n", .notFound)
        }
    }
}
