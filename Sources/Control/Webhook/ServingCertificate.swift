import Foundation
import Logging
import NIOCore
import NIOSSL
import Synchronization

/// What new connections are shown. Changing it changes nothing for those that are open.
final class ServingCertificate: Sendable {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    private struct State {
        var context: NIOSSLContext?
        var pem: PEMPair?
    }

    private let state = Mutex(State())
    private let metrics: WebhookMetrics

    init(metrics: WebhookMetrics) { self.metrics = metrics }

    var isLoaded: Bool { state.withLock { $0.context != nil } }

    func context() throws -> NIOSSLContext {
        guard let context = state.withLock({ $0.context }) else {
            throw Failure(description: "there is no certificate yet")
        }
        return context
    }

    /// False when it is the one that is served. A key that does not belong to the certificate is refused, and what was
    /// served before still is.
    @discardableResult
    func load(_ pem: PEMPair) throws -> Bool {
        if state.withLock({ $0.pem == pem }) { return false }
        do {
            let chain = try Self.said("tls.crt is no certificate in PEM") {
                try NIOSSLCertificate.fromPEMBytes(Array(pem.certificate.utf8))
            }
            guard let leaf = chain.first else { throw Failure(description: "there is no certificate in tls.crt") }
            let isEncrypted = pem.key.contains("ENCRYPTED")
            let noKey = isEncrypted ? "tls.key is encrypted, and nobody is asked" : "tls.key is no private key in PEM"
            let key = try Self.said(noKey) { try NIOSSLPrivateKey(bytes: Array(pem.key.utf8), format: .pem) }
            var configuration = TLSConfiguration.makeServerConfiguration(
                certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
            configuration.minimumTLSVersion = .tlsv12
            /* Whom we close need not agree. */
            configuration.shutdownTimeout = .milliseconds(500)
            configuration.applicationProtocols = ["http/1.1"]
            let context = try Self.said("tls.key does not belong to the first certificate of tls.crt") {
                try NIOSSLContext(configuration: configuration)
            }
            state.withLock { $0 = State(context: context, pem: pem) }
            metrics.certificateLoaded(notAfter: Date(timeIntervalSince1970: Double(leaf.notValidAfter)))
            return true
        } catch {
            metrics.certificateFailed()
            throw error
        }
    }

    /// BoringSSL's own words say nothing to who has laid the files there.
    private static func said<Value>(_ sentence: String, _ body: () throws -> Value) throws -> Value {
        do { return try body() } catch { throw Failure(description: sentence) }
    }
}

/// A certificate, with the chain behind it, and its private key.
struct PEMPair: Equatable, Sendable {
    var certificate: String
    var key: String
}

/// tls.crt and tls.key of a folder, as a mounted Secret or cert-manager have them.
struct CertificateFiles: Sendable {
    let folder: String

    static let period = Duration.seconds(5)

    func read() throws(ServingCertificate.Failure) -> PEMPair {
        PEMPair(certificate: try text("tls.crt"), key: try text("tls.key"))
    }

    private func text(_ name: String) throws(ServingCertificate.Failure) -> String {
        let path = folder + "/" + name
        do {
            return try String(contentsOfFile: path, encoding: .utf8)
        } catch {
            throw .init(description: "cannot read \(path): \(error.localizedDescription)")
        }
    }

    /// Until the task is cancelled. A change is taken when both files belong together: a Secret's are swapped at once.
    func follow(into certificate: ServingCertificate, log: Logger) async {
        var told = ""
        var tried: PEMPair?
        while (try? await Task.sleep(for: Self.period)) != nil {
            do {
                let pem = try read()
                if pem == tried { continue }
                tried = pem
                if try certificate.load(pem) { log.notice("certificate read again from \(folder)") }
                told = ""
            } catch {
                let sentence = "the certificate in \(folder) has changed and is no good: \(error)"
                if told != sentence { log.error("\(sentence); the one before is served") }
                told = sentence
            }
        }
    }
}
