import ArgumentParser
import Foundation
import Logging
import NIOCore
import NIOPosix
import ServiceLifecycle
import Synchronization
import UnixSignals

/// `ferritectl webhook`: what the API server asks about each pod that is made.
struct Webhook: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Answer the API server's admission reviews: pods that ask for it get the sidecar.",
        discussion: """
            Serves /mutate over TLS, and /healthz, /readyz and /metrics in plain HTTP on the health port. The certificate \
            comes from a folder (tls.crt and tls.key, as cert-manager's Secrets have them; read again when they change), or \
            with --self-signed from a Secret that the webhook makes, renews, and tells the API server of.

            Examples:
              ferritectl webhook --cert-dir /etc/ferrite/tls
              ferritectl webhook --self-signed ferrite-sidecar-tls --service ferrite-sidecar

            On SIGTERM it is not ready any more, answers for --shutdown-delay seconds, and ends.
            """)

    @Option(
        help: ArgumentHelp("A numeric address to listen on. All, of both families, if not given.", valueName: "address")
    )
    var bind: String?

    @Option(help: "The port of /mutate.")
    var port: UInt16 = 8443

    @Option(help: "The port of /healthz, /readyz and /metrics.")
    var healthPort: UInt16 = 8080

    @Option(help: ArgumentHelp("Folder with tls.crt and tls.key.", valueName: "folder"))
    var certDir: String?

    @Option(
        help: ArgumentHelp(
            "Keep a certificate of its own in this Secret, in the webhook's namespace.", valueName: "secret"))
    var selfSigned: String?

    @Option(help: ArgumentHelp("With --self-signed: the Service by which the API server calls.", valueName: "name"))
    var service = "ferrite-sidecar"

    @Option(
        help: ArgumentHelp(
            "With --self-signed: the MutatingWebhookConfiguration whose caBundle is kept.", valueName: "name"))
    var webhookConfiguration = "ferrite-sidecar"

    @Option(
        help: ArgumentHelp(
            "Seconds between SIGTERM and the end of the port, for the endpoints to follow.", valueName: "s"))
    var shutdownDelay: UInt = 5

    @Option(help: ArgumentHelp("Where the service account is mounted.", visibility: .hidden))
    var serviceAccount = KubernetesAPI.accountDefault

    @OptionGroup var defaults: DefaultsOptions

    func validate() throws {
        if (certDir == nil) == (selfSigned == nil) {
            throw ValidationError("give --cert-dir FOLDER, or --self-signed SECRET, and not both")
        }
    }

    func run() async throws {
        LoggingSystem.bootstrap(StreamLogHandler.standardError)
        let log = Logger(label: "ferritectl webhook")
        NIOSingletons.groupLoopCountSuggestion = 1
        let metrics = WebhookMetrics()
        let certificate = ServingCertificate(metrics: metrics)
        let follow = try follower(of: certificate, log)

        let isStopping = StopFlag()
        let health = HealthPage(metrics: metrics) {
            if isStopping.isSet { return "stopping" }
            return certificate.isLoaded ? nil : "there is no certificate yet"
        }
        let mutate = MutatePage(
            admission: AdmissionReview(injector: Injector(defaults: defaults.values)), metrics: metrics)
        /* A review takes a millisecond; a loop a core of a large node would be memory for nothing. Probes have one of
           their own, and do not wait behind reviews. */
        let loops = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        let listener = try await listen(port, loops, mutate, certificate)
        let healthListener = try await listen(healthPort, MultiThreadedEventLoopGroup(numberOfThreads: 1), health)
        log.notice(
            "ferritectl \(Version.current) answers /mutate on port \(listener.port), /healthz, /readyz and /metrics on \(healthListener.port)"
        )

        /* Asked to stop last to first. */
        let group = ServiceGroup(
            configuration: .init(
                services: [
                    .init(service: UntilStopped { await healthListener.stop(within: .seconds(1)) }),
                    .init(service: Following(work: follow)),
                    .init(
                        service: UntilStopped { [shutdownDelay] in
                            log.notice("stopping: answering for \(shutdownDelay) s more")
                            isStopping.set()
                            listener.letConnectionsEnd()
                            try? await Task.sleep(for: .seconds(shutdownDelay))
                            await listener.stop(within: .seconds(10))
                            log.notice("stopped")
                        }),
                ], gracefulShutdownSignals: [.sigterm, .sigint], logger: Self.quiet))
        try await group.run()
    }

    private static let quiet = Logger(label: "services") { _ in SwiftLogNoOpLogHandler() }

    private func follower(of certificate: ServingCertificate, _ log: Logger) throws -> @Sendable () async -> Void {
        if let selfSigned {
            do throws(KubernetesAPI.Failure) {
                let api = try KubernetesAPI(
                    environment: ProcessInfo.processInfo.environment, account: serviceAccount)
                let bootstrap = CertificateBootstrap(
                    api: api, namespace: try api.namespace(), secret: selfSigned, service: service,
                    configuration: webhookConfiguration)
                return { await bootstrap.follow(into: certificate, log: log) }
            } catch {
                throw Self.failed(error.description)
            }
        }
        let files = CertificateFiles(folder: certDir ?? "")
        do {
            try certificate.load(files.read())
        } catch {
            throw Self.failed("--cert-dir \(files.folder): \(error)")
        }
        return { await files.follow(into: certificate, log: log) }
    }

    private func listen(
        _ port: UInt16, _ group: any EventLoopGroup, _ endpoint: any HTTPEndpoint,
        _ certificate: ServingCertificate? = nil
    ) async throws -> HTTPListener {
        do {
            return try await HTTPListener(
                bind: bind, port: Int(port), on: group, certificate: certificate, endpoint)
        } catch {
            throw Self.failed("cannot listen on port \(port): \(error)")
        }
    }
}

extension Webhook {
    fileprivate static func failed(_ sentence: String) -> ExitCode {
        FileHandle.standardError.write(Data("ferritectl webhook: \(sentence)\n".utf8))
        return ExitCode(69)
    }
}

/// Waits until the process is asked to stop, and then does what stopping takes.
private struct UntilStopped: Service {
    let stop: @Sendable () async -> Void

    init(_ stop: @escaping @Sendable () async -> Void) { self.stop = stop }

    func run() async throws {
        try? await gracefulShutdown()
        await stop()
    }
}

/// Goes on until the process is asked to stop.
private struct Following: Service {
    let work: @Sendable () async -> Void

    func run() async throws { await cancelWhenGracefulShutdown(work) }
}

private final class StopFlag: Sendable {
    private let flag = Atomic<Bool>(false)
    var isSet: Bool { flag.load(ordering: .acquiring) }
    func set() { flag.store(true, ordering: .releasing) }
}
