/// Loop — the turn: the engine gathers, the flow decides, jobs of the control plane run between. Lives and dies on the
/// loop thread.
final class Loop {
    let engine: FastPath
    private(set) var flow: Flow<FastPath>
    private let services: LoopServices

    init(engine: FastPath, policy: FlowPolicy, services: LoopServices) {
        self.engine = engine
        self.services = services
        flow = Flow(orders: engine, policy: policy, nowNs: engine.nowNs)
    }

    func run() {
        while !flow.isFinished {
            if !services.executor.isIdle { services.executor.runJobs(self) }
            serveWishes()
            let batch = engine.turn(until: flow.deadlineNs)
            services.sawTurn(batch.nowNs)
            flow.handle(batch)
        }
        services.executor.close(self)
        serveWishes()
    }

    /* What the flow wants from others. Rare: a link that comes or goes. */
    @inline(__always)
    private func serveWishes() {
        if flow.wantsAddresses {
            flow.wantsAddresses = false
            services.resolve { [executor = services.executor] resolution in
                executor.enqueue { $0.flow.resolved(resolution, nowNs: $0.engine.nowNs) }
            }
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
}
