import Glibc
import Logging
import Synchronization

/// LoopThread — makes the loop's own thread: the first of the process, of ordinary scheduling class, never one of a
/// pool.
enum LoopThread {
    /// For what a container's limit may be raised to while it runs addresses are reserved: so many times what it has.
    private static let localMemoryRaise: UInt64 = 4
    private static let localMemoryRaiseLeast: UInt64 = 1 << 30

    /// Returns when the loop listens, or throws an `EngineError` that says why it does not. Any thread; waits.
    /// `announce` is called when it listens and before it serves anybody.
    /// `warm`: what is to be prefetched first.
    static func start(
        config: SidecarConfig, log: Logger, warm: HotNames = HotNames(), announce: (LoopHandle) -> Void = { _ in }
    ) throws -> LoopHandle {
        let journal = try journal(config)
        let tls = try tls(config)
        var settings = EngineSettings(config)
        settings.localMemoryBytesMax = max(localMemoryRaise * config.localMemory, localMemoryRaiseLeast)
        let engine = try FastPath(settings)
        let start = LoopStart(engine: engine, config: config, journal: journal, tls: tls, warm: warm)
        ControlThread.start(name: "ferrite-loop") { start.run() }
        let facts = try start.wait()
        let handle = LoopHandle(
            facts, services: LoopServices(engine: engine, config: config, log: log, journal: journal))
        announce(handle)
        for notice in facts.notices { notice.write(to: log, upstream: config.upstream.description) }
        start.go(handle)
        return handle
    }

    private static func tls(_ config: SidecarConfig) throws(EngineError) -> TLSContext? {
        guard config.upstream.isTLS else { return nil }
        do throws(TLSMistake) {
            return try TLSContext(config)
        } catch {
            throw EngineError("\(error.key): \(error.what)")
        }
    }

    private static func journal(_ config: SidecarConfig) throws(EngineError) -> JournalWriter? {
        guard !config.journal.isEmpty else { return nil }
        do throws(JournalFailure) {
            /* Copying must leave it much smaller: what is still to be carried out is no more than memory holds. */
            let bytesMax = max(64 << 20, 4 * Int(clamping: config.writeBehind.memory))
            return try JournalWriter(config.journal, fsync: config.journalFsync, bytesMax: bytesMax)
        } catch {
            throw EngineError(error.description)
        }
    }
}

/// What the rest of the process holds of the loop.
final class LoopHandle: Sendable {
    /// Where it listens: "127.0.0.1:6379", "/run/ferrite/sidecar.sock".
    let bound: [String]
    /// "io_uring" or "epoll".
    let networkName: String
    /// Why it is that one.
    let networkReason: String
    fileprivate let services: LoopServices
    private let end = Mutex(End())

    private struct End {
        /// What the loop's last snapshot was, once it has ended.
        var last: StatsSnapshot?
        var waiting: [CheckedContinuation<Void, Never>] = []
    }

    fileprivate init(_ facts: LoopStart.Facts, services: LoopServices) {
        bound = facts.bound
        networkName = facts.networkName
        networkReason = facts.networkReason
        self.services = services
    }

    /// Monotonic time of the loop's last turn, 0 before the first: its sign of life, at most a second old.
    var lastTurnNs: UInt64 { services.lastTurnNs.load(ordering: .relaxed) }

    /// The numbers between two turns; the last ones when the loop has ended.
    func stats() async -> StatsSnapshot {
        await withCheckedContinuation { continuation in
            let control = services.executor.control
            let isTaken = services.executor.enqueue { loop in
                let snapshot = loop.snapshot()
                control.run { continuation.resume(returning: snapshot) }
            }
            if !isTaken { continuation.resume(returning: lastSnapshot) }
        }
    }

    /// Runs between two turns; nil when the loop has ended.
    private func ask<Answer: Sendable>(_ job: @escaping @Sendable (Loop) -> Answer) async -> Answer? {
        await withCheckedContinuation { continuation in
            let control = services.executor.control
            let isTaken = services.executor.enqueue { loop in
                let answer = job(loop)
                control.run { continuation.resume(returning: answer) }
            }
            if !isTaken { continuation.resume(returning: nil) }
        }
    }

    /// Serves on until no client is connected or drain_timeout has passed; then `finished` returns.
    func beginDrain() { services.executor.enqueue { $0.beginDrain() } }

    /// Raises local_memory, or lowers it step by step: evicting much at once would keep clients waiting. Returns what it is
    /// then; nil when the loop has ended.
    func resize(from oldBytes: UInt64, to newBytes: UInt64) async -> UInt64? {
        var bytes = oldBytes
        repeat {
            let step = newBytes < bytes ? max(newBytes, bytes - min(bytes, Self.resizeStepBytes)) : newBytes
            guard let reached = await ask({ $0.engine.resize(localMemoryBytes: step) }) else { return nil }
            if reached == bytes { break }
            bytes = reached
        } while bytes > newBytes
        return bytes
    }

    /// Connections to the upstream that are made from now on use this.
    func speakTLS(_ context: TLSContext) { services.executor.enqueue { $0.engine.speakTLS(context) } }

    /// Returns when the loop has ended and everything of it is closed.
    func finished() async {
        await withCheckedContinuation { continuation in
            let isOver = end.withLock { end in
                if end.last == nil { end.waiting.append(continuation) }
                return end.last != nil
            }
            if isOver { continuation.resume() }
        }
    }

    private var lastSnapshot: StatsSnapshot {
        end.withLock { $0.last } ?? StatsSnapshot(values: [], upstream: UpstreamStatus(address: ""), takenAtNs: 0)
    }

    /* The loop thread, at its very end. */
    fileprivate func ended(_ last: StatsSnapshot) {
        let waiting = end.withLock { end in
            end.last = last
            defer { end.waiting = [] }
            return end.waiting
        }
        services.executor.control.run { for continuation in waiting { continuation.resume() } }
    }
}

extension LoopHandle: Steered {
    private static let resizeStepBytes: UInt64 = 1 << 20

    /// So many entries are looked at between two turns.
    private static let steps: UInt32 = 2_000
    /// An entry may be moved from where the walk will come to where it has been.
    private static let passesMax = 4

    func dropAll() async { _ = await ask { $0.flush() } }

    func drop(matching pattern: [UInt8]) async -> UInt64 {
        var total: UInt64 = 0
        for _ in 0..<Self.passesMax {
            var cursor: UInt64 = 0
            var dropped: UInt64 = 0
            repeat {
                let from = cursor
                guard let step = await ask({ $0.engine.drop(matching: pattern, from: from, steps: Self.steps) }) else {
                    return total
                }
                cursor = step.next
                dropped += step.dropped
            } while cursor != 0
            total += dropped
            if dropped == 0 { break }
        }
        return total
    }

    func prefetch(_ pattern: [UInt8]) async -> PrefetchAnswer { await ask { $0.prefetch(pattern) } ?? .unreachable }

    /// The hottest copies' names, so many at most, and behind them what an earlier process has left and nobody has fetched yet:
    /// one that lives for moments must not throw the list away. None if there is no copy.
    func hottestNames() async -> HotNames {
        let unfetched = await ask { $0.unfetched }
        var counts = [Int](repeating: 0, count: 256)
        await walk { loop, cursor in
            var found = [Int](repeating: 0, count: 256)
            let next = loop.engine.hotNames(atLeast: 0, from: cursor, steps: Self.steps) { found[Int($1)] += 1 }
            return (next, found)
        } each: {
            for (heat, count) in $0.enumerated() { counts[heat] += count }
        }
        let least = HotNames.leastHeat(counts)
        var names = HotNames()
        var others = HotNames()
        await walk { loop, cursor in
            var hotter = HotNames()
            var atLeast = HotNames()
            let next = loop.engine.hotNames(atLeast: least, from: cursor, steps: Self.steps) { name, heat in
                if heat > least { hotter.append(name) } else { atLeast.append(name) }
            }
            return (next, (hotter, atLeast))
        } each: {
            names.append($0.0)
            others.append($0.1)
        }
        names.append(others)
        if let unfetched, !names.isEmpty { names.appendNew(unfetched) }
        return names
    }

    /// A slice between two turns, and so on to the end of the store.
    private func walk<Found: Sendable>(
        _ slice: @escaping @Sendable (Loop, UInt64) -> (next: UInt64, Found), each: (Found) -> Void
    ) async {
        var cursor: UInt64 = 0
        repeat {
            let from = cursor
            guard !Task.isCancelled, let (next, found) = await ask({ slice($0, from) }) else { return }
            each(found)
            cursor = next
        } while cursor != 0
    }

    func bypass(_ isOn: Bool) async -> Bool { await ask { $0.bypass(isOn) } ?? isOn }

    func deadLetters() async -> ([DeadLetter], nowNs: UInt64) {
        await ask { ($0.flow.writes.deadLetters, nowNs: $0.engine.nowNs) } ?? ([], nowNs: 0)
    }
}

/// What the loop uses of the other threads; each call only hands something over.
final class LoopServices: Sendable {
    let executor: LoopExecutor
    let lastTurnNs = Atomic<UInt64>(0)
    /* A look-up takes the processor for a moment only, but the way back to the upstream leads through it: in a pod at
       its CPU limit a thread of SCHED_IDLE class may wait for seconds. */
    private let resolver = ControlWorker(name: "ferrite-dns", isUrgent: true)
    private let upstream: UpstreamAddress
    private let writeLog: @Sendable (FlowNotice) -> Void
    private let writeTrace: @Sendable (KeyEvent) -> Void
    /// A batch of it is on its way to the log. The next waits, in the engine's own bounded room, which tells what was lost.
    private let isTraceBusy = Atomic<Bool>(false)

    /// nil: there is none.
    let journal: JournalWriter?

    init(engine: FastPath, config: SidecarConfig, log: Logger, journal: JournalWriter?) {
        self.journal = journal
        executor = LoopExecutor(control: ControlWorker(name: "ferrite-control"), wake: { engine.wake() })
        upstream = config.upstream
        writeLog = { $0.write(to: log, upstream: config.upstream.description) }
        var trace = log
        trace.logLevel = .info
        writeTrace = { [trace] in trace.info("\($0)", metadata: ["key": "\(config.traceKey)"]) }
    }

    @inline(__always)
    func sawTurn(_ nowNs: UInt64) { lastTurnNs.store(nowNs, ordering: .relaxed) }

    func resolve(_ whenDone: @escaping @Sendable (Resolution) -> Void) {
        resolver.run { [upstream] in whenDone(Resolver.resolve(upstream)) }
    }

    func log(_ notices: [FlowNotice]) {
        executor.control.run { [writeLog] in notices.forEach(writeLog) }
    }

    var takesTrace: Bool { !isTraceBusy.load(ordering: .acquiring) }

    func log(_ events: [KeyEvent]) {
        isTraceBusy.store(true, ordering: .relaxed)
        executor.control.run { [self] in
            events.forEach(writeTrace)
            isTraceBusy.store(false, ordering: .releasing)
        }
    }
}

/// The way from `start` to the running loop: attach and listen on its thread, then wait for the handle.
private final class LoopStart: Sendable {
    struct Facts: Sendable {
        var bound: [String] = []
        var networkName = ""
        var networkReason = ""
        /// What the journal's files have shown.
        var notices: [FlowNotice] = []
    }

    private let engine: FastPath
    private let config: SidecarConfig
    private let journal: JournalWriter?
    private let tls: TLSContext?
    private let warm: HotNames
    private let ready = Semaphore()
    private let granted = Semaphore()
    private let outcome = Mutex<Result<Facts, EngineError>?>(nil)
    private let handle = Mutex<LoopHandle?>(nil)

    init(engine: FastPath, config: SidecarConfig, journal: JournalWriter?, tls: TLSContext?, warm: HotNames) {
        self.journal = journal
        self.tls = tls
        self.warm = warm
        self.engine = engine
        self.config = config
    }

    func wait() throws(EngineError) -> Facts {
        ready.wait()
        return try outcome.withLock { $0 }?.get() ?? Facts()
    }

    func go(_ handle: LoopHandle) {
        self.handle.withLock { $0 = handle }
        granted.signal()
    }

    /* The loop thread. */
    func run() {
        let result = Result { () throws(EngineError) in try listen() }
        outcome.withLock { $0 = result }
        ready.signal()
        guard case .success(let facts) = result else { return engine.destroy() }
        granted.wait()
        guard let handle = handle.withLock({ $0 }) else { return }
        serve(facts, handle)
    }

    private func listen() throws(EngineError) -> Facts {
        try engine.attach()
        if let tls { engine.speakTLS(tls) }
        var facts = Facts()
        do throws(JournalFailure) {
            facts.notices = try journal?.restore(to: engine) ?? []
        } catch {
            throw EngineError(error.description)
        }
        facts.bound = try listen(on: config.port).map(\.description)
        if config.freshPort != 0 {
            facts.bound += try listen(on: config.freshPort, isFresh: true).map { $0.description + " (fresh)" }
        }
        if !config.unixSocket.isEmpty {
            try engine.listen(unixSocket: config.unixSocket)
            facts.bound.append(config.unixSocket)
        }
        facts.networkName = engine.networkName
        facts.networkReason = engine.networkReason
        if facts.networkReason.isEmpty {
            facts.networkReason =
                config.network == .auto ? "auto: a probe succeeded" : "network = \(config.network.rawValue)"
        }
        return facts
    }

    /// On each address of `bind` that this machine has; port 0 is the kernel's choice for the first, and the same for all.
    private func listen(on port: UInt16, isFresh: Bool = false) throws(EngineError) -> [UpstreamAddress] {
        var bound: [UpstreamAddress] = []
        var missing: EngineError?
        for case let one? in config.bind.map({ ListenAddress($0) }) {
            do throws(EngineError) {
                let port = try engine.listen(
                    address: one.address.text, port: bound.first?.port ?? port, isFresh: isFresh)
                bound.append(UpstreamAddress(host: one.address.text, port: port))
            } catch  where one.isOptional && error.isNoAddressOfOurs {
                missing = error
            }
        }
        if bound.isEmpty, config.unixSocket.isEmpty, let missing { throw missing }
        return bound
    }

    private func serve(_ facts: Facts, _ handle: LoopHandle) {
        let last: StatsSnapshot
        let isOver: Bool
        do {
            var policy = FlowPolicy(
                config, networkName: facts.networkName, networkReason: facts.networkReason,
                seed: SystemRandomNumberGenerator.seed())
            policy.prefetch.warm = warm
            let loop = Loop(
                engine: engine, policy: policy, traceKey: config.traceKey, journal: journal?.status ?? JournalStatus())
            isOver = loop.run(with: handle.services)
            last = loop.snapshot()
        }
        handle.ended(last)
        engine.unlisten()
        if isOver { engine.destroy() }
    }
}

extension SystemRandomNumberGenerator {
    fileprivate static func seed() -> UInt64 {
        var generator = SystemRandomNumberGenerator()
        return generator.next()
    }
}

extension EngineSettings {
    init(_ config: SidecarConfig) {
        self.init(
            localMemoryBytes: config.localMemory, clientsMax: config.maxClients,
            /* One for each client, and the shared ones with their successors. */
            linksMax: config.maxClients + 8, idleTimeoutMs: UInt32(clamping: config.idleTimeoutMs),
            linkTimeoutMs: UInt32(clamping: min(config.linkTimeoutMs, UInt64(Int32.max))),
            network: config.network, eviction: config.eviction, allowAdmin: config.allowAdmin,
            behindBytesMax: config.mayWriteBehind ? config.writeBehind.memory : 0,
            prefetchPercent: config.prefetch.share,
            username: config.username, password: config.password)
    }
}
