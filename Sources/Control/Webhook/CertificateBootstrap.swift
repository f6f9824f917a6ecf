import Foundation
import Logging
import NIOHTTP1
import OrderedCollections
import X509

/// A certificate without cert-manager: kept in a Secret that all replicas share, told to the API server as the caBundle
/// of the webhook configuration, and renewed in time.
///
/// Replicas do not elect a leader: who finds the Secret missing makes it, and who finds it due writes it with the
/// resourceVersion it has read; of two the second is refused (409) and reads what the first has written.
struct CertificateBootstrap: Sendable {
    let api: KubernetesAPI
    let namespace: String
    let secret: String
    let service: String
    /// Of the MutatingWebhookConfiguration.
    let configuration: String

    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    static let period = Duration.seconds(30)
    private static let retry = Duration.seconds(2)

    /// Until the task is cancelled. What is found to be otherwise is put right each time: a configuration that is replaced
    /// has no caBundle.
    func follow(into certificate: ServingCertificate, log: Logger) async {
        var told = ""
        var isGood = false
        repeat {
            do {
                try await reconcile(into: certificate, now: Date(), log: log)
                isGood = true
                told = ""
            } catch {
                isGood = false
                if told != "\(error)" { log.error("self-signed certificate: \(error); trying again") }
                told = "\(error)"
            }
        } while (try? await Task.sleep(for: isGood ? Self.period : Self.retry)) != nil
    }

    /// The API server knows of an authority before anything it has signed is shown.
    func reconcile(into certificate: ServingCertificate, now: Date, log: Logger) async throws {
        let current = try await settle(now: now, log: log)
        try await announce(current.authorities, now: now, log: log)
        if try certificate.load(current.serving) {
            log.notice("serving a certificate of the Secret \(namespace)/\(secret)")
        }
    }

    private var secrets: String { "/api/v1/namespaces/\(namespace)/secrets" }

    private func settle(now: Date, log: Logger) async throws -> SelfSigned {
        let names = SelfSigned.names(service: service, namespace: namespace)
        for _ in 0..<3 {
            let found = try await api.call(.GET, "\(secrets)/\(secret)")
            guard found.status == 200 || found.status == 404 else { throw refused("read", found) }
            let present = SelfSigned(secret: found.body["data"])
            let next = try SelfSigned.renewed(present, names: names, now: now)
            if next == present { return next }
            let written = try await write(next, over: found)
            if written.status == 409 { continue }
            guard (200..<300).contains(written.status) else { throw refused("write", written) }
            log.notice("Secret \(namespace)/\(secret) \(found.status == 404 ? "made" : "renewed")")
            return next
        }
        throw Failure(description: "the Secret \(namespace)/\(secret) changes again and again")
    }

    private func write(_ next: SelfSigned, over found: KubernetesAPI.Reply) async throws -> KubernetesAPI.Reply {
        if found.status == 404 {
            return try await api.call(
                .POST, secrets,
                [
                    "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
                    "metadata": [
                        "name": .string(secret), "labels": ["app.kubernetes.io/managed-by": "ferritectl-webhook"],
                    ],
                    "data": try next.secret(),
                ])
        }
        guard case .object(var object) = found.body else { throw refused("read", found) }
        /* Whatever else is in it stays: labels, owners, keys. */
        var data = found.body["data"]?.object ?? [:]
        for (key, value) in try next.secret().object ?? [:] { data[key] = value }
        object["data"] = .object(data)
        return try await api.call(.PUT, "\(secrets)/\(secret)", .object(object))
    }

    private func refused(_ what: String, _ reply: KubernetesAPI.Reply) -> Failure {
        Failure(
            description:
                "the Secret \(namespace)/\(secret) cannot be \(what == "read" ? "read" : "written"): \(reply.message)")
    }

    /// Writes the caBundle of each of the configuration's webhooks where it is another. Authorities that it has already
    /// stay, a few: when the Secret was lost, another replica still shows what the one before has signed.
    private func announce(_ authorities: [Certificate], now: Date, log: Logger) async throws {
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/\(configuration)"
        let found = try await api.call(.GET, path)
        guard found.status == 200 else {
            throw Failure(
                description: "the MutatingWebhookConfiguration \(configuration) cannot be read: \(found.message)")
        }
        let webhooks = found.body["webhooks"]?.elements ?? []
        let present = webhooks.first?["clientConfig"]?["caBundle"]?.string.flatMap { Data(base64Encoded: $0) }
        let others = present.map { SelfSigned.authorities(pem: String(decoding: $0, as: UTF8.self)) } ?? []
        let bundle = try SelfSigned.bundle(authorities, and: others, now: now)
        let wanted = JSON.string(Data(bundle.utf8).base64EncodedString())
        var changes: [JSON] = []
        for (index, webhook) in webhooks.enumerated() where webhook["clientConfig"]?["caBundle"] != wanted {
            /* The index is the webhook's only while nobody has changed the list. */
            changes.append([
                "op": "test", "path": .string("/webhooks/\(index)/name"), "value": webhook["name"] ?? .null,
            ])
            changes.append(
                ["op": "add", "path": .string("/webhooks/\(index)/clientConfig/caBundle"), "value": wanted])
        }
        if changes.isEmpty { return }
        let patched = try await api.call(.PATCH, path, .array(changes), type: "application/json-patch+json")
        guard patched.status == 200 else {
            throw Failure(
                description: "the caBundle of \(configuration) cannot be written: \(patched.message)")
        }
        log.notice("caBundle of \(configuration) written")
    }
}
