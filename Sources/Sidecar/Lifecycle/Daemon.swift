import Glibc
import Logging
import ServiceLifecycle
import Synchronization

/// From a checked configuration to a running sidecar, and down again. Called on the main thread, which then waits for
/// signals until the process ends.
///
///     signals blocked ─► metrics port bound ─► the loop ─► log writer, watchdog ─► main thread: SCHED_IDLE
///         ─► NIO and the concurrency pool (which inherit that class) ─► sigwait ─► drain ─► exit
enum Daemon {
    /// Exit codes, as sysexits.h names them.
    enum ExitCode {
        /// The configuration is wrong (EX_CONFIG).
        static let config: Int32 = 78
        /// No upstream, or wrong options (EX_USAGE).
        static let usage: Int32 = 64
        /// A port is taken, the network engine asked for is not to be had (EX_UNAVAILABLE).
        static let unavailable: Int32 = 69
        /// The loop has ended though nobody asked it to (EX_SOFTWARE).
        static let software: Int32 = 70
    }

    static func run(_ resolved: ResolvedConfig) -> Never {
        let config = resolved.config
        var signals = Signals()
        let startSeconds = wallClockSeconds()

        var metricsSocket: MetricsSocket?
        if config.metrics.enabled {
            do throws(MetricsSocket.Failure) {
                metricsSocket = try MetricsSocket(config.metrics)
            } catch {
                fail(error.description)
            }
        }
        var adminSocket: AdminSocket?
        if !config.adminSocket.isEmpty {
            do throws(AdminSocket.Failure) {
                adminSocket = try AdminSocket(config.adminSocket)
            } catch {
                fail(error.description)
            }
        }
        let fileLimit = FileLimit.raise(to: FileLimit.needed(clientsMax: config.maxClients))

        let output = LogOutput(format: config.logFormat)
        LoggingSystem.bootstrap { _ in SidecarLogHandler(output: output, level: config.logLevel.logger) }
        let log = Logger(label: "ferrite")

        let tlsWatch = TLSWatch(config, log: log)
        let warmStart = config.warmStart.isEmpty ? nil : WarmStart(path: config.warmStart, log: log)
        let loop: LoopHandle
        do {
            loop = try LoopThread.start(config: config, log: log, warm: warmStart?.read() ?? HotNames()) { loop in
                announce(resolved, loop, metrics: metricsSocket?.description, fileLimit: fileLimit, log)
                /* Who waits for the first PONG finds the start line written. */
                output.writePending()
            }
        } catch {
            output.writePending()
            fail("\(error)")
        }
        output.start()
        let watchdog = Watchdog(log: log) { loop.lastTurnNs }
        watchdog.start()
        ControlThread.enterIdleClass()

        let facts = SidecarFacts(
            version: Version.current, config: resolved, listeners: loop.bound, networkName: loop.networkName,
            networkReason: loop.networkReason, startSeconds: startSeconds)

        let draining = DrainFlag()
        let pages = MetricsPages(
            table: .fastPath, facts: facts, stats: { await loop.stats() },
            stuckNs: { watchdog.stuckNs(nowNs: MonotonicClock.nowNs()) },
            isDraining: { draining.isSet }, logLinesDropped: { output.dropped }, nowSeconds: wallClockSeconds)
        if let warmStart { Task { await warmStart.run(loop) } }
        Task { await MemoryWatch(resolved, log: log).run(loop) }
        if let tlsWatch { Task { await tlsWatch.run(loop) } }
        let shutdown = Shutdown()
        Task {
            await serve(loop, metricsSocket, pages, adminSocket, shutdown)
            await shutdown.ended()
            adminSocket?.remove()
            output.flush()
            exit(draining.isSet ? 0 : ExitCode.software)
        }

        let first = signals.next()
        draining.set()
        log.notice(
            "\(first.isOwn ? "ferritectl drain" : first.name): draining until no client is connected, at most \(TimeSpan.show(config.drainTimeoutMs))"
        )
        Task {
            let names = await warmStart?.lastNames(loop)
            await shutdown.trigger { if let names { warmStart?.write(names) } }
        }
        /* Behind ferritectl's comes the kubelet's own, the first: a preStop hook must not cut the drain short. */
        if first.isOwn { log.notice("\(signals.nextForeign().name): draining already") }
        let second = signals.nextForeign()
        log.warning("\(second.name) again: leaving at once")
        output.flush(milliseconds: 100)
        _exit(128 + second.number)
    }

    private static func serve(
        _ loop: LoopHandle, _ socket: MetricsSocket?, _ pages: MetricsPages, _ adminSocket: AdminSocket?,
        _ shutdown: Shutdown
    ) async {
        var services: [ServiceGroupConfiguration.ServiceConfiguration] = []
        let log = Logger(label: "ferrite")
        if let socket {
            do {
                services.append(.init(service: PageService(server: try await HTTPServer(socket.fd, pages))))
            } catch {
                log.error("the metrics page does not start: \(error)")
            }
        }
        if let adminSocket {
            let admin = AdminPages(loop: loop, drain: { kill(getpid(), SIGTERM) })
            do {
                services.append(.init(service: PageService(server: try await HTTPServer(adminSocket.fd, admin))))
            } catch {
                log.error("the admin socket does not start: \(error)")
            }
        }
        /* Asked to stop last to first: the loop drains while the metrics page still answers. */
        services.append(
            .init(service: LoopService(loop: loop), successTerminationBehavior: .gracefullyShutdownGroup))
        var quiet = log
        quiet.logLevel = .critical
        let group = ServiceGroup(configuration: .init(services: services, logger: quiet))
        await shutdown.arm { await group.triggerGracefulShutdown() }
        do {
            try await group.run()
        } catch {
            log.error("stopping: \(error)")
        }
        log.notice("stopped")
    }

    private static func announce(
        _ resolved: ResolvedConfig, _ loop: LoopHandle, metrics: String?, fileLimit: UInt64, _ log: Logger
    ) {
        let config = resolved.config
        var metadata: Logger.Metadata = [
            "network": "\(loop.networkName)", "upstream": "\(config.upstream)", "mode": "\(config.mode.rawValue)",
            "budget": "\(ByteSize.show(config.localMemory))", "pid": "\(getpid())",
        ]
        if let metrics { metadata["metrics"] = "\(metrics)" }
        metadata["network_reason"] = "\(loop.networkReason)"
        log.notice("ferrite \(Version.current) listening on \(loop.bound.joined(separator: ", "))", metadata: metadata)
        for warning in resolved.warnings { log.warning("\(warning)") }
        let needed = FileLimit.needed(clientsMax: config.maxClients)
        if fileLimit < needed {
            log.warning(
                "only \(fileLimit) files may be open, max_clients = \(config.maxClients) can need \(needed); raise the limit (ulimit -n) or lower max_clients"
            )
        }
    }

    private static func wallClockSeconds() -> Double {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        return Double(now.tv_sec) + Double(now.tv_nsec / 1_000_000) / 1e3
    }

    static func fail(_ sentence: String, code: Int32 = ExitCode.unavailable) -> Never {
        StandardError.write("ferrite: \(sentence)\n")
        exit(code)
    }
}

/// Set once, when the first signal has come.
private final class DrainFlag: Sendable {
    private let flag = Atomic<Bool>(false)
    var isSet: Bool { flag.load(ordering: .acquiring) }
    func set() { flag.store(true, ordering: .releasing) }
}

/// A signal may come before there is a group to shut down.
private actor Shutdown {
    private var action: (@Sendable () async -> Void)?
    private var isTriggered = false
    private var work: Task<Void, Never>?

    func arm(_ action: @escaping @Sendable () async -> Void) async {
        self.action = action
        if isTriggered { await action() }
    }

    /// The work is done while the group shuts down, which does not wait for it.
    func trigger(beside work: @escaping @Sendable () -> Void) async {
        isTriggered = true
        self.work = Task { work() }
        await action?()
    }

    func ended() async { await work?.value }
}
