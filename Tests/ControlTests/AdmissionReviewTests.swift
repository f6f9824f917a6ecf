import Foundation
import Testing

@testable import Control

@Suite("AdmissionReview")
struct AdmissionReviewTests {
    private let admission = AdmissionReview(injector: Injector())

    private func body(_ request: String, version: String = "admission.k8s.io/v1") -> Data {
        Data(#"{"kind":"AdmissionReview","apiVersion":"\#(version)","request":\#(request)}"#.utf8)
    }

    private func pod(
        _ inject: String, namespace: String = "shop", kind: String = "Pod", operation: String = "CREATE"
    ) -> Data {
        let pod =
            #"{"metadata":{"annotations":{"ferrite.io/sidecar-inject":"\#(inject)"}},"spec":{"containers":[{"name":"app"}]}}"#
        let kind = #"{"group":"","version":"v1","kind":"\#(kind)"}"#
        return body(
            #"{"uid":"u1","kind":\#(kind),"namespace":"\#(namespace)","operation":"\#(operation)","object":\#(pod)}"#)
    }

    private func response(_ data: Data) throws -> (JSON, String) {
        guard case .review(let review, let decision) = admission.answer(data) else {
            Issue.record("no review")
            return (.null, "")
        }
        #expect(review["kind"] == "AdmissionReview" && review["apiVersion"] == "admission.k8s.io/v1")
        return (try #require(review["response"]), decision)
    }

    @Test("A pod that asks gets a patch; its uid comes back")
    func injected() throws {
        let (response, decision) = try response(pod("true"))
        #expect(decision == "injected" && response["uid"] == "u1" && response["allowed"] == true)
        #expect(response["patchType"] == "JSONPatch" && response["warnings"] == nil)
        let patch = try #require(response["patch"]?.string.flatMap { Data(base64Encoded: $0) })
        let operations = try JSONReader.read(patch).elements
        #expect(operations.contains { $0["path"] == "/spec/initContainers" && $0["op"] == "add" })
    }

    @Test("What is left alone is allowed without a patch, with a warning where it was asked for")
    func allowed() throws {
        for (data, decision, warns) in [
            (pod("false"), "opted-out", false), (pod("true", namespace: "kube-system"), "system-namespace", true),
            (pod("true", kind: "Service"), "not-a-pod", false),
            (pod("true", operation: "UPDATE"), "not-created", false),
            (body(#"{"uid":"u1","kind":{"kind":"Pod"},"operation":"DELETE","object":null}"#), "not-a-pod", false),
        ] {
            let (response, found) = try response(data)
            #expect(found == decision && response["allowed"] == true && response["patch"] == nil)
            #expect((response["warnings"] != nil) == warns)
            #expect(response["auditAnnotations"]?["decision"]?.string == decision)
        }
    }

    @Test("What is wrong is denied, in a sentence")
    func denied() throws {
        let (response, decision) = try response(pod("yes"))
        #expect(decision == "bad-annotation" && response["allowed"] == false && response["uid"] == "u1")
        #expect(response["status"]?["message"]?.string?.contains("use \"true\" or \"false\"") == true)
    }

    @Test("What is no review is refused")
    func malformed() {
        let bodies: [Data] = [
            Data(), Data("{".utf8), Data("[]".utf8), Data("null".utf8), Data([0xFF, 0xFE]), body("null"), body("{}"),
            body(#"{"uid":""}"#), body(#"{"uid":3}"#), body(#"{"uid":"u"}"#, version: "admission.k8s.io/v1beta1"),
            Data(String(repeating: "[", count: 100_000).utf8), Data(String(repeating: #"{"a":"#, count: 10_000).utf8),
        ]
        for data in bodies {
            guard case .malformed = admission.answer(data) else {
                Issue.record("taken: \(String(decoding: data.prefix(60), as: UTF8.self))")
                continue
            }
        }
    }
}
