/// Loop — the turn: the engine gathers, the flow decides, jobs of the control plane run between. Lives and dies on the
/// loop thread.
final class Loop {
    let engine: FastPath
    private(set) var flow: Flow<FastPath>
    private let isTracing: Bool

    init(engine: FastPath, policy: FlowPolicy, traceKey: String = "", journal: JournalStatus = JournalStatus()) {
        self.engine = engine
        isTracing = !traceKey.isEmpty
        engine.trace(Array(traceKey.utf8))
        flow = Flow(orders: engine, policy: policy, nowNs: engine.nowNs)
        flow.journaling.status = journal
    }

    /// False when the journal's thread is left with what it does: the engine must outlive it.
    func run(with services: LoopServices) -> Bool {
        while !flow.isFinished {
            if !services.executor.isIdle { services.executor.runJobs(self) }
            serveWishes(services)
            services.sawTurn(turn(until: flow.deadlineNs))
        }
        let waits = services.journal?.wait() ?? true
        services.executor.close(self)
        let isOver = waits && (services.journal.map(finish) ?? true)
        if !isOver { flow.notices.append(.journalHangs(seconds: JournalWriter.patienceSeconds)) }
        if isOver { serveWishes(services) } else { services.log(flow.notices) }
        return isOver
    }

    /// What has been carried out is told; when all has been, there is nothing to tell.
    private func finish(_ journal: JournalWriter) -> Bool {
        while let work = nextJournalWork() {
            guard let outcome = journal.finish(work) else { return false }
            journalDid(outcome)
        }
        guard let outcome = journal.finish(flow.unwritten == 0 ? .clear : .sync) else { return false }
        flow.journalEnded(outcome)
        return true
    }

    /// Returns the time of the turn.
    @discardableResult
    @inline(__always)
    func turn(until deadlineNs: UInt64) -> UInt64 {
        let batch = engine.turn(until: deadlineNs)
        flow.handle(batch)
        return batch.nowNs
    }

    /// A turn that does what there is to do at this moment, for who holds the clock: the simulator.
    func turnNow() -> UInt64 { turn(until: 0) }

    /// What the journal's thread is to do next, asked after every turn; and what came of it.
    @inline(__always)
    func nextJournalWork() -> JournalWork? { flow.nextJournalWork() }
    func journalDid(_ outcome: JournalOutcome) { flow.journalDid(outcome, nowNs: engine.nowNs) }

    func forgetNotices() { flow.notices.removeAll() }

    /* What the flow wants from others. Rare: a link that comes or goes. */
    @inline(__always)
    private func serveWishes(_ services: LoopServices) {
        if flow.wantsAddresses {
            flow.wantsAddresses = false
            services.resolve { [executor = services.executor] resolution in
                executor.enqueue { $0.flow.resolved(resolution, nowNs: $0.engine.nowNs) }
            }
        }
        if let journal = services.journal, let work = nextJournalWork() {
            journal.run(work) { [executor = services.executor] outcome in
                executor.enqueue { $0.journalDid(outcome) }
            }
        }
        if isTracing, services.takesTrace {
            let events = engine.takeTrace()
            if !events.isEmpty { services.log(events) }
        }
        if !flow.notices.isEmpty {
            services.log(flow.notices)
            flow.notices.removeAll()
        }
    }

    func snapshot() -> StatsSnapshot {
        StatsSnapshot(values: engine.stats(), upstream: flow.status, calls: engine.calls(), takenAtNs: engine.nowNs)
    }

    func beginDrain() { flow.beginDrain(engine.nowNs) }

    /// Nothing is served from the cache, and nothing kept, while it is on. Returns whether it is: the fleet's may be.
    func bypass(_ isOn: Bool) -> Bool {
        flow.setBypass(byHand: isOn)
        return flow.isBypassed
    }

    func flush() { flow.flush(engine.nowNs) }

    var unfetched: HotNames { flow.prefetch.unfetched }

    func prefetch(_ pattern: [UInt8]) -> PrefetchAnswer { flow.beginPrefetch(pattern, engine.nowNs) }
}
