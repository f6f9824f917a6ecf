import CFastPath
import Glibc

@testable import Sidecar

/// World — one seed: sidecars, their clients, an upstream, writers elsewhere and a network between them, in one thread and
/// on one clock that jumps from event to event.
final class World {
    enum Event {
        case pickUp(Pod, Wire)
        case toEngine(Pod, Wire, [UInt8])
        case endToEngine(Pod, Wire, Int32)
        case toUpstream(Pod, Wire, [UInt8])
        case endToUpstream(Wire)
        case toClient(SimClient, fp_wire, [UInt8])
        case endToClient(SimClient, fp_wire)
        case wake(Pod)
        case act(SimClient)
        case look(SimClient, Int)
        case write(Int)
        case fault(Int)
        case thaw
        case begin(() -> Void)
        case tell(Int)
        case slow(losses: [UInt64], faults: Int)
        case heal(Plan.Fault)
        case journal(Pod, Int)
        case time
    }

    let seed: UInt64
    var plan: Plan
    var chance: Chance
    var nowNs: UInt64 = second
    let model: UpstreamModel
    var registers: Registers
    var pods: [Pod] = []
    var clients: [SimClient] = []
    var queue = EventQueue<Event>()
    var writers: [UpstreamModel.Connection] = []
    var snapshot: UpstreamModel.Snapshot
    var isDown = false
    /// New connections are turned away; those that are there live.
    var isShut = false
    var frozenUntilNs: UInt64 = 0
    var faultsInjected = 0
    /// The fault by which it became full was this one.
    var fullAt = 0
    var held: [Event] = []
    var wiresByConnection: [Int: (pod: Pod, wire: Wire)] = [:]
    var podOfConnection: [Int: Int] = [:]
    var timeAtNs = UInt64.max
    var isHealed = false
    var steps = 0
    var refused: [(token: Int, text: String)] = []

    private(set) var failure: String?
    /// The last things that happened, for a failing seed's history.
    private(set) var history: [String] = []
    var keepsHistory = false
    var valueNames: [UInt64: String] = [:]
    var nextToken = 1
    var nextClient = 1
    var coverage: [String: Int] = [:]
    var buffer = [UInt8](repeating: 0, count: 65_536)

    init(seed: UInt64, keepsHistory: Bool = false) throws {
        self.seed = seed
        self.keepsHistory = keepsHistory
        chance = Chance(seed: seed)
        plan = Plan(&chance)
        model = UpstreamModel(keys: plan.keys + 1)
        registers = Registers(keys: plan.keys + 1)
        model.speaksTracking = plan.speaksTracking
        model.tableMax = plan.tableMax
        snapshot = model.snapshot()
        for index in 0..<plan.pods { pods.append(try Pod(index, plan, seed: seed, nowNs: nowNs)) }
        for _ in 0..<2 { writers.append(model.connect()) }
        for filler in 0..<plan.fillers {
            let value = [UInt8](repeating: UInt8(ascii: "f"), count: 150_000)
            _ = model.perform(["SET".array, [UInt8]("f", filler), value], on: writers[0])
            writers[0].out.removeAll()
        }
        _ = model.perform(["RPUSH".array, "names".array] + (0..<plan.keys).map { [UInt8]("k", $0) }, on: writers[0])
        writers[0].out.removeAll()
        let habits: [SimClient.Habit] = [
            .plain, .plain, .plain, .transactions, .subscriber, .worker, .scripts, .otherDatabase,
        ]
        let total = plan.pods * plan.clientsPerPod
        for pod in pods {
            for index in 0..<plan.clientsPerPod {
                var habit = index < 2 ? .plain : chance.pick(habits)
                if plan.isBehind, plan.isPlainOnly || habit == .otherDatabase { habit = .plain }
                clients.append(
                    SimClient(index, pod, habit, commands: plan.commands / total + 1, keys: plan.keys + 1))
            }
        }
        for client in clients { queue.push(nowNs + chance.below(300 * millisecond), .act(client)) }
        for index in 0..<2 { queue.push(nowNs + chance.below(200 * millisecond), .write(index)) }
        for (index, fault) in plan.faults.enumerated() { queue.push(second + fault.atNs, .fault(index)) }
        for pod in pods { wake(pod, at: nowNs) }
        if keepsHistory, let key = getenv("FERRITE_TRACE") {
            for pod in pods { pod.loop.engine.trace(Array(String(cString: key).utf8)) }
        }
    }

    deinit { for pod in pods { pod.destroy() } }

    func note(_ text: @autoclosure () -> String) {
        guard keepsHistory, failure == nil else { return }
        history.append("\(time(nowNs))  \(text())")
        if history.count > 4_000 { history.removeFirst(2_000) }
    }

    func fail(_ text: String) {
        if failure == nil {
            note("FAILED: \(text)")
            failure = "at \(time(nowNs)): \(text)"
        }
    }

    func cover(_ name: String) { coverage[name, default: 0] += 1 }

    // MARK: running

    /// Runs it to its end: the planned time, then healing, then everybody reads everything, then all go.
    func run() {
        run(until: second + plan.lengthNs)
        askEnough()
        if failure != nil { return }
        heal()
        run(until: nowNs + 8 * second)
        if failure != nil { return }
        readEverything()
        run(until: nowNs + 3 * second)
        for client in clients where failure == nil && client.isConnected {
            if let asked = client.due { fail("\(client.name) was never answered: \(asked.text)") }
        }
        for (token, text) in refused where model.truth.execution(of: token) > 0 {
            fail("\(text) was refused, and yet the upstream has carried it out")
        }
        /* What was acknowledged is sent again until it is confirmed. */
        for token in model.truth.repeated where failure == nil && !plan.isBehind {
            fail("token \(token) was carried out twice")
        }
        judgeUpstream()
        leave()
        /* A row of blocking commands that a client has left is gone through, one after the other, each for 2 s. */
        for _ in 0..<10 where failure == nil {
            run(until: nowNs + 7 * second)
            if pods.allSatisfy({ $0.loop.engine.clientCount == 0 }) { break }
        }
        for pod in pods where failure == nil {
            if pod.loop.engine.clientCount > 0 { fail("clients are left when all have gone") }
            /* One more may be looking whether the upstream is there. */
            let links = pod.wires.count { $0.map { $0.isUpstream && !$0.isOver } ?? false }
            /* The tracked one, and the one for what RESP2 answers differently. */
            if links > (pod.loop.flow.probe.link == 0 ? 2 : 3) {
                fail("pod\(pod.index) has \(links) links when all clients have gone")
            }
            collect(pod)
        }
    }

    func run(until endNs: UInt64) {
        while failure == nil, let next = queue.peekNs, next <= endNs, let (timeNs, event) = queue.pop() {
            steps += 1
            if steps > 400_000 { return fail("it does not come to an end") }
            nowNs = max(nowNs, timeNs)
            model.nowNs = nowNs
            handle(event)
        }
        nowNs = max(nowNs, endNs)
        model.nowNs = nowNs
    }

    func handle(_ event: Event) {
        switch event {
        case .wake(let pod):
            guard pod.wakeNs <= nowNs else { return }
            pod.wakeNs = .max
            if nowNs < pod.stalledUntilNs { wake(pod, at: pod.stalledUntilNs) } else { turn(pod) }
        case .pickUp(let pod, let wire):
            pickUp(pod, wire)
        case .journal(let pod, let life): didJournal(pod, life)
        case .toEngine(let pod, let wire, let bytes):
            guard pod.owns(wire) else { return }
            bytes.withUnsafeBytes { fp_sim_deliver(pod.sim, wire.number, $0.baseAddress, bytes.count) }
            lookAsItHears(pod, wire)
            stir(pod)
        case .endToEngine(let pod, let wire, let error):
            guard pod.owns(wire) else { return }
            wire.isOver = true
            if error != 0, wire.deadNs == 0 { wire.deadNs = nowNs }
            fp_sim_end(pod.sim, wire.number, error)
            stir(pod)
        case .toUpstream(_, let wire, let bytes):
            if nowNs < frozenUntilNs { return held.append(event) }
            /* Only what was on its way comes from a socket that is dead. */
            if wire.deadNs != 0, nowNs > wire.deadNs + 2 * plan.delayNs.high { return }
            guard let connection = wire.connection, !connection.isClosed else { return }
            model.receive(bytes, on: connection)
            flushModel()
        case .endToUpstream(let wire):
            if nowNs < frozenUntilNs { return held.append(event) }
            if let connection = wire.connection, !connection.isClosed {
                model.end(connection)
                flush(connection)
                endToEngine(wire)
            }
            flushModel()
        case .thaw:
            let waiting = held
            held = []
            for event in waiting { handle(event) }
        case .toClient(let client, let wire, let bytes):
            if client.wire == wire { hear(client, bytes) }
        case .endToClient(let client, let wire):
            if client.wire == wire {
                closed(client)
                disconnected(client)
            }
        case .begin(let begin): begin()
        case .tell(let key): tell(key)
        case .slow(let losses, let faults): lookAfterSlow(losses, faults)
        case .act(let client):
            act(client)
        case .look(let client, let key):
            if client.isConnected, !client.isBlocked, client.commandsLeft > 0, client.asked.count < 40 {
                ask(client, [["GET".array, [UInt8]("k", key)]], [.read([key])])
            }
        case .write(let index):
            write(index)
        case .fault(let index):
            inject(plan.faults[index].fault)
        case .heal(let fault):
            heal(fault)
        case .time:
            timeAtNs = .max
            if nowNs >= frozenUntilNs {
                model.passTime()
                flushModel()
            }
            planTime()
        }
    }

    // MARK: the sidecars

    func wake(_ pod: Pod, at timeNs: UInt64) {
        guard timeNs < pod.wakeNs else { return }
        pod.wakeNs = timeNs
        queue.push(timeNs, .wake(pod))
    }

    /// Something has arrived: it has its turn soon, together with what arrives until then.
    func stir(_ pod: Pod) { wake(pod, at: nowNs + chance.below(60_000)) }

    func turn(_ pod: Pod) {
        pod.wakeNs = .max
        fp_sim_time(pod.sim, nowNs)
        var rounds = 0
        var wasDue: Bool
        /* What a turn serves, it serves by what it knew at its beginning. */
        noteLaxity(pod)
        repeat {
            wasDue = pod.loop.flow.deadlineNs <= nowNs
            _ = pod.loop.turnNow()
            drain(pod)
            rounds += 1
            if let wrong = fp_sim_unsound(pod.loop.engine.engine) { fail("pod\(pod.index): \(String(cString: wrong))") }
            /* What the flow has to send for it goes with the next. */
        } while (!fp_sim_is_idle(pod.sim) || wasDue || pod.loop.flow.deadlineNs <= nowNs) && rounds < 100_000
            && failure == nil
        if rounds >= 100_000 { fail("pod\(pod.index) does not come to rest") }
        for notice in pod.loop.flow.notices { note("pod\(pod.index): \(notice)") }
        pod.loop.forgetNotices()
        if keepsHistory { for event in pod.loop.engine.takeTrace() { note("pod\(pod.index): \(event)") } }
        noteLaxity(pod)
        let heartbeat = pod.loop.flow.tracked.heartbeat
        if pod.loop.flow.tracked.isUp, heartbeat.isLate, !heartbeat.isSilent {
            cover("rule 3: trust waits for a fence")
        }
        journalOn(pod)
        wake(pod, at: max(nowNs + 1, pod.loop.flow.deadlineNs))
    }

    func noteLaxity(_ pod: Pod) {
        let status = pod.loop.flow.status
        let isUntracked = !status.tracking && !plan.isAlwaysTracked
        if isUntracked || status.state == .unreachable { pod.laxNs = nowNs }
        if status.breakerIsOpen { pod.slowNs = nowNs }
        if status.state == .unreachable, !pod.isUnreachable, isOnlyFull(pod) {
            if model.isFull { fail("pod\(pod.index) takes an upstream for unreachable that tells it to be full") }
            if isShut, hasLivingPin(pod) {
                fail("pod\(pod.index) takes an upstream for unreachable to which a client's link lives")
            }
        }
        pod.isUnreachable = status.state == .unreachable
    }

    /// It has nothing against the pod but that new connections are too many.
    func isOnlyFull(_ pod: Pod) -> Bool {
        let isSlow = plan.delayNs.high > 2 * millisecond || nowNs < pod.stalledUntilNs
        let isHeld = pod.wires.contains { wire in
            wire.map { $0.toEngine.heldUntilNs > nowNs || $0.toEngine.extraNs > 0 } ?? false
        }
        let isOther = isDown || model.isLoading || nowNs < frozenUntilNs || isSlow || isHeld
        /* An attempt from before may have been reset, without a word. */
        return (model.isFull || isShut) && fullAt == faultsInjected && pod.wasUpWhenFull && !isOther
    }

    /// As the pod takes it, and as it is.
    func hasLivingPin(_ pod: Pod) -> Bool {
        pod.loop.flow.pins.hasOpen
            && pod.links.contains { wire in
                wire !== pod.trackedWire && !wire.isCut && !wire.isOver && wire.connection?.isClosed == false
            }
    }

    func drain(_ pod: Pod) {
        while true {
            let number = fp_sim_changed(pod.sim)
            if number == 0 { return }
            let state = fp_sim_state(pod.sim, number)
            if state == .FP_WIRE_DIALED, pod.wire(number) == nil {
                let wire = Wire(number, .upstream)
                pod.add(wire)
                fp_sim_room(pod.sim, number, plan.roomBytes)
                queue.push(nowNs + delay(plan.delayNs), .pickUp(pod, wire))
                continue
            }
            guard let wire = pod.wire(number) else { continue }
            if case .client(let client) = wire.peer, nowNs < client.deafUntilNs, state != .FP_WIRE_GONE { continue }
            if fp_sim_is_aborted(pod.sim, number), wire.deadNs == 0 { wire.deadNs = nowNs }
            take(pod, wire)
            if state == .FP_WIRE_FINISHED || state == .FP_WIRE_GONE { ended(pod, wire) }
        }
    }

    func take(_ pod: Pod, _ wire: Wire) {
        while true {
            let count = buffer.withUnsafeMutableBytes { fp_sim_take(pod.sim, wire.number, $0.baseAddress, $0.count) }
            if count == 0 { return }
            if wire.isCut { continue }
            let bytes = Array(buffer[0..<count])
            switch wire.peer {
            case .upstream:
                send(bytes, &wire.fromEngine, plan.delayNs) { .toUpstream(pod, wire, $0) }
                guard wire.fromEngine.heldUntilNs == .max, !wire.isDoomed else { continue }
                wire.isDoomed = true
                queue.push(nowNs + plan.config.linkTimeoutMs * millisecond, .endToEngine(pod, wire, 110))
            case .client(let client):
                send(bytes, &wire.fromEngine, plan.clientDelayNs) { .toClient(client, wire.number, $0) }
            }
        }
    }

    func ended(_ pod: Pod, _ wire: Wire) {
        wire.isOver = true
        if wire.isCut { return }
        switch wire.peer {
        case .upstream:
            arrive(&wire.fromEngine, plan.delayNs, .endToUpstream(wire))
        case .client(let client):
            arrive(&wire.fromEngine, plan.clientDelayNs, .endToClient(client, wire.number))
        }
    }

    func pickUp(_ pod: Pod, _ wire: Wire) {
        if isDown || isShut {
            fp_sim_pick_up(pod.sim, wire.number, 111)
            return stir(pod)
        }
        let connection = model.connect()
        wire.connection = connection
        wire.toEngine.heldUntilNs = max(wire.toEngine.heldUntilNs, pod.mutedUntilNs)
        wiresByConnection[connection.id] = (pod, wire)
        podOfConnection[connection.id] = pod.index
        fp_sim_pick_up(pod.sim, wire.number, 0)
        if model.isFull {
            model.refuse(connection)
            flush(connection)
            endToEngine(wire)
        }
        stir(pod)
    }

    // MARK: the end

    /// Who was held up by what went wrong makes up for it: a seed has 200 commands at least.
    func askEnough() {
        var tries = 0
        while failure == nil, coverage["commands", default: 0] < 200, tries < 20 {
            tries += 1
            for client in clients {
                client.commandsLeft += 5
                queue.push(nowNs + chance.below(50 * millisecond), .act(client))
            }
            run(until: nowNs + 200 * millisecond)
        }
    }

    func readEverything() {
        for pod in pods {
            let client = SimClient(90, pod, .plain, commands: 0, keys: plan.keys + 1)
            client.isFinal = true
            clients.append(client)
            connect(client)
            for key in 0..<plan.keys { ask(client, [["GET".array, [UInt8]("k", key)]], [.read([key])]) }
        }
    }

    func leave() {
        for client in clients where client.isConnected {
            if let wire = client.pod.wire(client.wire) {
                wire.isCut = true
                queue.push(nowNs, .endToEngine(client.pod, wire, chance.oneIn(2) ? 104 : 0))
            }
            client.forget()
        }
    }

    /// Of the process that ends.
    func judgeAudits(_ pod: Pod) {
        let engine = pod.loop.engine
        let values = engine.stats()
        let audited = { (result: String) in
            engine.metricOffset("ferrite_sidecar_audit_total", "result=\"\(result)\"").map { Int(values[$0]) } ?? 0
        }
        coverage["audits", default: 0] += audited("same")
        if audited("stale") > 0, plan.isAlwaysTracked { fail("pod\(pod.index): an audit has found a stale copy") }
    }

    func collect(_ pod: Pod) {
        judgeAudits(pod)
        let status = pod.loop.flow.status
        let engine = pod.loop.engine
        let values = engine.stats()
        for (name, shown) in [
            ("ferrite_keyspace_hits_total", "hits"), ("ferrite_keyspace_misses_total", "misses"),
            ("ferrite_sidecar_fills_total", "rule 1: copies kept"),
            ("ferrite_sidecar_stale_served_total", "rule 7: stale copies served"),
            ("ferrite_sidecar_refreshes_total", "rule 7: copies refreshed"),
            ("ferrite_sidecar_absent_served_total", "absences served"),
            ("ferrite_sidecar_fetches_behind_total", "fetches behind writes"),
            ("ferrite_sidecar_flights_spoiled_total", "rule 4: flights spoiled"),
            ("ferrite_sidecar_flights_joined_total", "rule 5: flights joined"),
            ("ferrite_sidecar_suspect_served_total", "rule 6: suspect copies served"),
            ("ferrite_expired_keys_total", "rule 7: expiries"),
            ("ferrite_sidecar_invalidations_total", "invalidations"), ("ferrite_evicted_keys_total", "evictions"),
        ] {
            if let offset = engine.metricOffset(name, "") { coverage[shown, default: 0] += Int(values[offset]) }
        }
        coverage["prefetched", default: 0] += Int(status.prefetch.fetched)
        coverage["rule 3: fences", default: 0] += Int(status.fences)
        coverage["rule 6: epochs ended", default: 0] += Int(status.reconnects)
        coverage["rule 6: suspensions", default: 0] += Int(status.heartbeatsLate)
        coverage["read timeouts", default: 0] += Int(status.timeouts)
        coverage["pushes", default: 0] += model.pushes
    }
}

extension [UInt8] {
    init(decimal: Int) {
        self = []
        append(decimal: decimal)
    }
}
