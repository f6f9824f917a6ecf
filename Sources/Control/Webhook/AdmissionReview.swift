import Foundation
import OrderedCollections

/// What the API server asks and hears: admission.k8s.io/v1, AdmissionReview. A pure function from a request's body to an
/// answer's; a dry run is no different, since nothing else is done.
struct AdmissionReview: Sendable {
    var injector: Injector

    enum Answer: Equatable {
        /// The AdmissionReview that goes back, and the decision for the metrics.
        case review(JSON, decision: String)
        /// The body is no AdmissionReview: a sentence for whoever sent it.
        case malformed(String)
    }

    /// Decisions about what is no pod that is being made.
    static let otherDecisions = ["not-a-pod", "not-created"]

    func answer(_ body: Data) -> Answer {
        let review: JSON
        do throws(JSONReader.Failure) {
            review = try JSONReader.read(body)
        } catch {
            return .malformed("the body is no JSON that is taken here: \(error)")
        }
        guard review["kind"]?.string == "AdmissionReview", review["apiVersion"]?.string == "admission.k8s.io/v1" else {
            return .malformed("expected kind AdmissionReview of admission.k8s.io/v1")
        }
        guard let request = review["request"], let uid = request["uid"]?.string, !uid.isEmpty else {
            return .malformed("request.uid is missing")
        }
        guard request["kind"]?["kind"]?.string == "Pod", request["kind"]?["group"]?.string ?? "" == "",
            let pod = request["object"], pod.object != nil
        else { return Self.allowed(uid, decision: "not-a-pod") }
        guard request["operation"]?.string ?? "CREATE" == "CREATE" else {
            return Self.allowed(uid, decision: "not-created")
        }
        let decision = injector.decide(pod: pod, namespace: request["namespace"]?.string)
        switch decision {
        case .injected(let patch, let warnings):
            return Self.allowed(uid, decision: decision.name, patch: patch, warnings: warnings)
        case .skipped(let reason):
            let warnings = reason.isWarning ? ["not injected: \(reason.sentence)"] : []
            return Self.allowed(uid, decision: decision.name, warnings: warnings)
        case .denied(_, let mistakes):
            return .review(
                Self.review([
                    "uid": .string(uid), "allowed": false,
                    "status": [
                        "code": 422, "reason": "Invalid",
                        "message": .string("ferrite: " + mistakes.joined(separator: "; ")),
                    ],
                    "auditAnnotations": ["decision": .string(decision.name)],
                ]), decision: decision.name)
        }
    }

    private static func allowed(
        _ uid: String, decision: String, patch: [PatchOperation] = [], warnings: [String] = []
    ) -> Answer {
        var response: OrderedMembers = [
            "uid": .string(uid), "allowed": true, "auditAnnotations": ["decision": .string(decision)],
        ]
        if !patch.isEmpty, let bytes = try? JSONEncoder().encode(JSON.array(patch.map(\.json))) {
            response["patchType"] = "JSONPatch"
            response["patch"] = .string(bytes.base64EncodedString())
        }
        if !warnings.isEmpty { response["warnings"] = .array(warnings.map { .string("ferrite: " + $0) }) }
        return .review(review(response), decision: decision)
    }

    private static func review(_ response: OrderedMembers) -> JSON {
        ["kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": .object(response)]
    }
}
