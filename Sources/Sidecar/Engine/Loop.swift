/// Loop — the turn: the engine gathers, the flow decides, jobs of the control plane run between. Lives and dies on the
/// loop thread.
final class Loop {
    let engine: FastPath
    private(set) var flow: Flow<FastPath>
    private let isTracing: Bool

    init(engine: FastPath, policy: FlowPolicy, traceKey: String = "") {
        self.engine = engine
        isTracing = !traceKey.isEmpty
        engine.trace(Array(traceKey.utf8))
        flow = Flow(orders: engine, policy: policy, nowNs: engine.nowNs)
    }

    func run(with services: LoopServices) {
        while !flow.isFinished {
            if !services.executor.isIdle { services.executor.runJobs(self) }
            serveWishes(services)
            services.sawTurn(turn(until: flow.deadlineNs))
        }
        services.executor.close(self)
        serveWishes(services)
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
        if isTracing {
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

    /// Nothing is served from the cache, and nothing kept, while it is on.
    func bypass(_ isOn: Bool) { flow.setBypass(byHand: isOn) }

    /// False when a prefetch is under way.
    func prefetch(_ pattern: [UInt8]) -> Bool { flow.beginPrefetch(pattern, engine.nowNs) }
}
