import CFastPath

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
        case heal(Plan.Fault)
        case time
    }

    let seed: UInt64
    var plan: Plan
    var chance: Chance
    var nowNs: UInt64 = second
    let model: UpstreamModel
    var pods: [Pod] = []
    var clients: [SimClient] = []
    private var queue = EventQueue<Event>()
    private var writers: [UpstreamModel.Connection] = []
    private var snapshot: UpstreamModel.Snapshot
    private var isDown = false
    private var frozenUntilNs: UInt64 = 0
    private var held: [Event] = []
    private var wiresByConnection: [Int: (pod: Pod, wire: Wire)] = [:]
    private var timeAtNs = UInt64.max
    private var isHealed = false
    private var steps = 0
    private var refused: [(token: Int, text: String)] = []

    private(set) var failure: String?
    /// The last things that happened, for a failing seed's history.
    private(set) var history: [String] = []
    var keepsHistory = false
    var valueNames: [UInt64: String] = [:]
    private var nextToken = 1
    var coverage: [String: Int] = [:]
    private var buffer = [UInt8](repeating: 0, count: 65_536)

    init(seed: UInt64, keepsHistory: Bool = false) throws {
        self.seed = seed
        self.keepsHistory = keepsHistory
        chance = Chance(seed: seed)
        plan = Plan(&chance)
        model = UpstreamModel(keys: plan.keys)
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
        let habits: [SimClient.Habit] = [
            .plain, .plain, .plain, .transactions, .subscriber, .worker, .scripts, .otherDatabase,
        ]
        let total = plan.pods * plan.clientsPerPod
        for pod in pods {
            for index in 0..<plan.clientsPerPod {
                let habit = index < 2 ? .plain : chance.pick(habits)
                clients.append(
                    SimClient(index, pod, habit, commands: plan.commands / total + 1, keys: plan.keys))
            }
        }
        for client in clients { queue.push(nowNs + chance.below(300 * millisecond), .act(client)) }
        for index in 0..<2 { queue.push(nowNs + chance.below(200 * millisecond), .write(index)) }
        for (index, fault) in plan.faults.enumerated() { queue.push(second + fault.atNs, .fault(index)) }
        for pod in pods { wake(pod, at: nowNs) }
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

    private func cover(_ name: String) { coverage[name, default: 0] += 1 }

    // MARK: running

    /// Runs it to its end: the planned time, then healing, then everybody reads everything, then all go.
    func run() {
        run(until: second + plan.lengthNs)
        if failure != nil { return }
        heal()
        run(until: nowNs + 8 * second)
        if failure != nil { return }
        readEverything()
        run(until: nowNs + 3 * second)
        for client in clients where failure == nil && client.isFinal && !client.asked.isEmpty {
            fail("\(client.name) was never answered: \(client.asked[0].text)")
        }
        for (token, text) in refused where model.truth.execution(of: token) > 0 {
            fail("\(text) was refused, and yet the upstream has carried it out")
        }
        for token in model.truth.repeated where failure == nil { fail("token \(token) was carried out twice") }
        leave()
        run(until: nowNs + 7 * second)
        for pod in pods where failure == nil {
            if pod.loop.engine.clientCount > 0 { fail("clients are left when all have gone") }
            collect(pod)
        }
    }

    private func run(until endNs: UInt64) {
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

    private func handle(_ event: Event) {
        switch event {
        case .wake(let pod):
            if pod.wakeNs <= nowNs { turn(pod) }
        case .pickUp(let pod, let wire):
            pickUp(pod, wire)
        case .toEngine(let pod, let wire, let bytes):
            bytes.withUnsafeBytes { fp_sim_deliver(pod.sim, wire.number, $0.baseAddress, bytes.count) }
            stir(pod)
        case .endToEngine(let pod, let wire, let error):
            fp_sim_end(pod.sim, wire.number, error)
            stir(pod)
        case .toUpstream(_, let wire, let bytes):
            if nowNs < frozenUntilNs { return held.append(event) }
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

    private func wake(_ pod: Pod, at timeNs: UInt64) {
        guard timeNs < pod.wakeNs else { return }
        pod.wakeNs = timeNs
        queue.push(timeNs, .wake(pod))
    }

    /// Something has arrived: it has its turn soon, together with what arrives until then.
    private func stir(_ pod: Pod) { wake(pod, at: nowNs + chance.below(60_000)) }

    private func turn(_ pod: Pod) {
        pod.wakeNs = .max
        fp_sim_time(pod.sim, nowNs)
        var rounds = 0
        repeat {
            _ = pod.loop.turnNow()
            drain(pod)
            rounds += 1
            if let wrong = fp_sim_unsound(pod.loop.engine.engine) { fail("pod\(pod.index): \(String(cString: wrong))") }
        } while (!fp_sim_is_idle(pod.sim) || pod.loop.flow.deadlineNs <= nowNs) && rounds < 20_000 && failure == nil
        if rounds >= 20_000 { fail("pod\(pod.index) does not come to rest") }
        pod.loop.forgetNotices()
        let status = pod.loop.flow.status
        if !status.tracking || status.state == .unreachable { pod.laxNs = nowNs }
        wake(pod, at: max(nowNs + 1, pod.loop.flow.deadlineNs))
    }

    private func drain(_ pod: Pod) {
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
            take(pod, wire)
            if state == .FP_WIRE_FINISHED || state == .FP_WIRE_GONE { ended(pod, wire) }
        }
    }

    private func take(_ pod: Pod, _ wire: Wire) {
        while true {
            let count = buffer.withUnsafeMutableBytes { fp_sim_take(pod.sim, wire.number, $0.baseAddress, $0.count) }
            if count == 0 { return }
            if wire.isCut { continue }
            let bytes = Array(buffer[0..<count])
            switch wire.peer {
            case .upstream:
                send(bytes, &wire.fromEngine, plan.delayNs) { .toUpstream(pod, wire, $0) }
            case .client(let client):
                send(bytes, &wire.fromEngine, plan.clientDelayNs) { .toClient(client, wire.number, $0) }
            }
        }
    }

    private func ended(_ pod: Pod, _ wire: Wire) {
        if wire.isCut { return }
        switch wire.peer {
        case .upstream:
            arrive(&wire.fromEngine, plan.delayNs, .endToUpstream(wire))
        case .client(let client):
            arrive(&wire.fromEngine, plan.clientDelayNs, .endToClient(client, wire.number))
        }
    }

    private func pickUp(_ pod: Pod, _ wire: Wire) {
        if isDown {
            fp_sim_pick_up(pod.sim, wire.number, 111)
            return stir(pod)
        }
        let connection = model.connect()
        wire.connection = connection
        wiresByConnection[connection.id] = (pod, wire)
        fp_sim_pick_up(pod.sim, wire.number, 0)
        stir(pod)
    }

    // MARK: the network

    private func delay(_ range: (low: UInt64, high: UInt64)) -> UInt64 {
        chance.oneIn(30) ? range.high * 2 : chance.between(range.low, range.high)
    }

    private func arrive(_ channel: inout Channel, _ range: (low: UInt64, high: UInt64), _ event: Event) {
        if channel.heldUntilNs == .max { return }
        var timeNs = max(channel.lastNs, nowNs + delay(range) + channel.extraNs)
        /* What was held comes in pieces too. */
        if timeNs < channel.heldUntilNs { timeNs = channel.heldUntilNs + chance.below(range.high) }
        timeNs = max(timeNs, channel.lastNs)
        channel.lastNs = timeNs
        queue.push(timeNs, event)
    }

    private func send(
        _ bytes: [UInt8], _ channel: inout Channel, _ range: (low: UInt64, high: UInt64), _ event: ([UInt8]) -> Event
    ) {
        var rest = bytes[...]
        while plan.splits > 0, rest.count > 1, chance.oneIn(plan.splits) {
            let first = 1 + chance.below(rest.count - 1)
            arrive(&channel, range, event(Array(rest.prefix(first))))
            rest = rest.dropFirst(first)
        }
        arrive(&channel, range, event(Array(rest)))
    }

    private func flushModel() {
        for connection in model.connections { flush(connection) }
        planTime()
    }

    private func flush(_ connection: UpstreamModel.Connection) {
        guard !connection.out.isEmpty else { return }
        let bytes = connection.out
        connection.out.removeAll(keepingCapacity: true)
        guard let (pod, wire) = wiresByConnection[connection.id], !wire.isCut else { return }
        send(bytes, &wire.toEngine, plan.delayNs) { .toEngine(pod, wire, $0) }
    }

    private func endToEngine(_ wire: Wire) {
        guard let connection = wire.connection, let (pod, _) = wiresByConnection[connection.id], !wire.isCut else {
            return
        }
        arrive(&wire.toEngine, plan.delayNs, .endToEngine(pod, wire, 0))
    }

    private func planTime() {
        let next = model.nextDeadlineNs
        if next < timeAtNs {
            timeAtNs = next
            queue.push(max(next, max(nowNs, frozenUntilNs)), .time)
        }
    }

    // MARK: faults

    private func cut(_ pod: Pod, _ wire: Wire, reset: Bool) {
        if let connection = wire.connection, !connection.isClosed {
            model.close(connection)
            wiresByConnection[connection.id] = nil
        }
        if reset {
            queue.push(nowNs + chance.below(millisecond), .endToEngine(pod, wire, 104))
        } else {
            arrive(&wire.toEngine, plan.delayNs, .endToEngine(pod, wire, 0))
        }
        wire.isCut = true
    }

    private func cutAll(reset: Bool) {
        for pod in pods { for wire in pod.links { cut(pod, wire, reset: reset) } }
        for index in writers.indices where writers[index].isClosed { writers[index] = model.connect() }
    }

    private func inject(_ fault: Plan.Fault) {
        if isHealed { return }
        note("fault: \(fault)")
        cover("fault \("\(fault)".prefix { $0 != "(" })")
        let pod = chance.pick(pods)
        switch fault {
        case .cut(let reset, let all):
            for wire in pod.links where all || chance.oneIn(2) { cut(pod, wire, reset: reset) }
        case .blackhole(let length):
            guard let wire = pod.trackedWire else { return }
            wire.toEngine.heldUntilNs = max(wire.toEngine.heldUntilNs, nowNs + length)
            wire.fromEngine.heldUntilNs = max(wire.fromEngine.heldUntilNs, nowNs + length)
            if wire.toEngine.heldUntilNs != .max { lookAround(pod, wire.toEngine.heldUntilNs) }
        case .halfOpen:
            guard let wire = pod.trackedWire else { return }
            wire.toEngine.heldUntilNs = .max
            wire.fromEngine.heldUntilNs = .max
        case .freeze(let length):
            frozenUntilNs = max(frozenUntilNs, nowNs + length)
            queue.push(frozenUntilNs, .thaw)
        case .restart(let length):
            stop()
            queue.push(nowNs + length, .heal(fault))
        case .failover(let isEmpty):
            stop()
            isDown = false
            model.failOver(to: isEmpty ? nil : snapshot)
            for index in writers.indices { writers[index] = model.connect() }
        case .loading(let length):
            stop()
            isDown = false
            model.isLoading = true
            for index in writers.indices { writers[index] = model.connect() }
            queue.push(nowNs + length, .heal(fault))
        case .password(let length):
            model.password = "changed".array
            for wire in pod.links { cut(pod, wire, reset: true) }
            queue.push(nowNs + length, .heal(fault))
        case .trackingRefused(let length):
            model.refusesTracking = true
            for wire in pod.links { cut(pod, wire, reset: true) }
            queue.push(nowNs + length, .heal(fault))
        case .lag(let extra, let length):
            guard let wire = pod.trackedWire else { return }
            wire.toEngine.extraNs = extra
            queue.push(nowNs + length, .heal(fault))
        case .clientGone(let reset):
            let client = chance.pick(clients)
            guard client.isConnected, let wire = client.pod.wire(client.wire) else { return }
            if reset {
                wire.isCut = true
                queue.push(nowNs, .endToEngine(client.pod, wire, 104))
                disconnected(client)
            } else {
                arrive(&wire.toEngine, plan.clientDelayNs, .endToEngine(client.pod, wire, 0))
                client.commandsLeft = 0
            }
        case .clientDeaf(let length):
            let client = chance.pick(clients)
            client.deafUntilNs = nowNs + length
            queue.push(client.deafUntilNs, .heal(fault))
        }
    }

    /// All connections are reset and none is taken.
    private func stop() {
        isDown = true
        for pod in pods { for wire in pod.links { cut(pod, wire, reset: true) } }
        model.restart()
    }

    private func heal(_ fault: Plan.Fault) {
        switch fault {
        case .restart:
            isDown = false
            for index in writers.indices where writers[index].isClosed { writers[index] = model.connect() }
        case .loading: model.isLoading = false
        case .password: model.password = nil
        case .trackingRefused:
            model.refusesTracking = false
            /* The sidecar asks again with its next link only. */
            for pod in pods { for wire in pod.links where chance.oneIn(2) { cut(pod, wire, reset: true) } }
        case .lag:
            for pod in pods { for wire in pod.links { wire.toEngine.extraNs = 0 } }
        case .clientDeaf:
            for client in clients {
                if let wire = client.pod.wire(client.wire) { take(client.pod, wire) }
                stir(client.pod)
            }
        default: break
        }
    }

    private func heal() {
        note("all is healed")
        isHealed = true
        plan.delayNs = (20_000, 200_000)
        for pod in pods { for wire in pod.links { wire.toEngine.extraNs = 0 } }
        isDown = false
        model.isLoading = false
        model.password = nil
        model.refusesTracking = false
        for index in writers.indices where writers[index].isClosed { writers[index] = model.connect() }
        for client in clients { client.commandsLeft = 0 }
    }

    // MARK: the end

    private func readEverything() {
        for pod in pods {
            let client = SimClient(90, pod, .plain, commands: 0, keys: plan.keys)
            client.isFinal = true
            clients.append(client)
            connect(client)
            for key in 0..<plan.keys { ask(client, [["GET".array, [UInt8]("k", key)]], [.read([key])]) }
        }
    }

    private func leave() {
        for client in clients where client.isConnected {
            if let wire = client.pod.wire(client.wire) {
                wire.isCut = true
                queue.push(nowNs, .endToEngine(client.pod, wire, chance.oneIn(2) ? 104 : 0))
            }
            client.forget()
        }
    }

    private func collect(_ pod: Pod) {
        let status = pod.loop.flow.status
        let engine = pod.loop.engine
        let values = engine.stats()
        for (name, labels, shown) in [
            ("ferrite_keyspace_hits_total", "", "hits"), ("ferrite_keyspace_misses_total", "", "misses"),
            ("ferrite_sidecar_invalidations_total", "", "invalidations"), ("ferrite_sidecar_fills_total", "", "fills"),
            ("ferrite_evicted_keys_total", "", "evictions"), ("ferrite_expired_keys_total", "", "expiries"),
        ] {
            if let offset = engine.metricOffset(name, labels) { coverage[shown, default: 0] += Int(values[offset]) }
        }
        coverage["fences", default: 0] += Int(status.fences)
        coverage["reconnects", default: 0] += Int(status.reconnects)
        coverage["suspensions", default: 0] += Int(status.heartbeatsLate)
        coverage["read timeouts", default: 0] += Int(status.timeouts)
        coverage["pushes", default: 0] += model.pushes
    }

    // MARK: clients

    private func connect(_ client: SimClient) {
        client.forget()
        client.wire = fp_sim_connect(client.pod.sim)
        client.isConnected = true
        let wire = Wire(client.wire, .client(client))
        client.pod.add(wire)
        fp_sim_room(client.pod.sim, client.wire, plan.roomBytes)
        stir(client.pod)
        if client.habit != .otherDatabase, chance.oneIn(2) {
            client.protocolVersion = 3
            ask(client, [["HELLO".array, "3".array]], [.plain])
        }
    }

    /// The pod has closed it: of what was not answered nobody knows whether it was done. What was done counts like an
    /// own write: nothing from before it may be served.
    private func closed(_ client: SimClient) {
        for asked in client.asked {
            guard case .write(let keys, let token) = asked.kind else { continue }
            let number = model.truth.execution(of: token)
            for key in keys { client.pod.written[key] = max(client.pod.written[key], number) }
        }
    }

    private func disconnected(_ client: SimClient) {
        guard client.isConnected else { return }
        note("\(client.name) is disconnected with \(client.asked.count) unanswered")
        cover("disconnections")
        client.forget()
        if client.isFinal { return fail("\(client.name) was closed though all is well") }
        queue.push(nowNs + chance.between(millisecond, 200 * millisecond), .act(client))
    }

    private func token() -> Int {
        nextToken += 1
        return nextToken - 1
    }

    private func value(_ token: Int) -> [UInt8] {
        var bytes = [UInt8]("v", token)
        if chance.oneIn(2) {
            bytes.append(UInt8(ascii: "-"))
            bytes.append(contentsOf: repeatElement(UInt8(ascii: "x"), count: chance.below(plan.valueBytesMax)))
        }
        if keepsHistory { valueNames[Truth.hash(bytes)] = "v\(token)" }
        return bytes
    }

    private func hash(_ value: RESPValue) -> UInt64? {
        switch value {
        case .bulk(let bytes): Truth.hash(bytes)
        case .null: 0
        default: nil
        }
    }

    /// Sends commands in one piece.
    func ask(_ client: SimClient, _ commands: [[[UInt8]]], _ kinds: [Asked.Kind]) {
        var bytes: [UInt8] = []
        for (words, kind) in zip(commands, kinds) {
            bytes.appendCommand(words)
            var keys: [Int] = []
            if case .read(let read) = kind { keys = read }
            if case .scriptRead(let key) = kind { keys = [key] }
            if case .watchedRead(let key) = kind { keys = [key] }
            cover("commands")
            client.asked.append(
                Asked(
                    kind: kind, words: words, atNs: nowNs, floor: client.pod.floor,
                    leastRead: keys.map { client.pod.read[$0] }, leastServed: keys.map { client.pod.served[$0] },
                    leastWritten: keys.map { client.pod.written[$0] },
                    flightsSinceNs: keys.map { oldestRead(of: $0, client.pod) }))
            note("\(client.name) → \(client.asked[client.asked.count - 1].text)")
        }
        client.commandsLeft -= commands.count
        guard let wire = client.pod.wire(client.wire) else { return }
        let pod = client.pod
        send(bytes, &wire.toEngine, plan.clientDelayNs) { .toEngine(pod, wire, $0) }
    }

    private func oldestRead(of key: Int, _ pod: Pod) -> UInt64 {
        var oldest = nowNs
        for client in clients where client.pod === pod {
            for asked in client.asked {
                if case .read(let keys) = asked.kind, keys.contains(key) { oldest = min(oldest, asked.atNs) }
            }
        }
        return oldest
    }

    /// Something has become known in a pod, perhaps of this key: somebody looks at once.
    private func arouse(_ pod: Pod, _ key: Int?) {
        guard plan.curiosity > 0, !isHealed, chance.oneIn(plan.curiosity) else { return }
        let others = clients.filter { $0.pod === pod && $0.habit == .plain && !$0.isFinal }
        let reader = chance.pick(others)
        queue.push(nowNs + chance.below(60_000), .look(reader, key ?? self.key()))
    }

    /// What was held arrives from then on: many look.
    private func lookAround(_ pod: Pod, _ timeNs: UInt64) {
        let others = clients.filter { $0.pod === pod && $0.habit == .plain && !$0.isFinal }
        for _ in 0..<12 {
            queue.push(timeNs + chance.below(2 * plan.delayNs.high), .look(chance.pick(others), key()))
        }
    }

    private func act(_ client: SimClient) {
        guard client.commandsLeft > 0 else { return }
        if !client.isConnected { connect(client) }
        if !client.isBlocked, client.asked.count < 40 {
            var commands: [[[UInt8]]] = []
            var kinds: [Asked.Kind] = []
            for _ in 0..<1 + chance.below(chance.oneIn(3) ? 8 : 2) { generate(client, &commands, &kinds) }
            if !commands.isEmpty { ask(client, commands, kinds) }
        }
        let pause = plan.lengthNs / UInt64(plan.commands) * UInt64(plan.clientsPerPod * plan.pods)
        queue.push(nowNs + chance.between(pause / 4, pause * 3), .act(client))
    }

    private func hear(_ client: SimClient, _ bytes: [UInt8]) {
        client.reader.append(bytes)
        while failure == nil {
            switch client.reader.next() {
            case .partial: return
            case .malformed: return fail("\(client.name) got what is not RESP")
            case .value(let value): hear(client, value)
            }
        }
    }

    private func isMessage(_ client: SimClient, _ value: RESPValue) -> [UInt8]? {
        switch value {
        case .push(let items), .array(let items):
            guard client.habit == .subscriber, items.count == 3, items[0] == .bulk("message".array),
                case .bulk(let text) = items[2]
            else { return nil }
            return text
        default: return nil
        }
    }

    private func hear(_ client: SimClient, _ value: RESPValue) {
        note("\(client.name) ← \(value.text.prefix(60))")
        if let text = isMessage(client, value) {
            cover("messages")
            if let token = UpstreamModel.token(text) { tellOf(token, client) }
            return
        }
        guard let asked = client.asked.first else {
            return fail("\(client.name) got an answer to nothing: \(value.text.prefix(80))")
        }
        client.asked.removeFirst()
        if case .error(let text) = value {
            cover("errors")
            noteRefusal(asked, text)
        }
        if client.isFinal, value.isError {
            return fail("\(client.name): \(asked.text) failed though all is well: \(value.text)")
        }
        answer(client, asked, value)
    }

    /// The sidecar says that a write has not been carried out: then it must never be.
    private func noteRefusal(_ asked: Asked, _ text: [UInt8]) {
        guard text.starts(with: "ERR upstream".utf8) || text.starts(with: "ERR local_memory".utf8) else { return }
        switch asked.kind {
        case .write(_, let token), .script(_, let token): refused.append((token, asked.text))
        case .pass(let token):
            let reads = ["HGET", "XPENDING", "EXISTS"].map(\.array)
            if !reads.contains(asked.words[0]) { refused.append((token, asked.text)) }
        default: break
        }
    }

    /// Something that carries a token has come from the upstream.
    private func tellOf(_ token: Int, _ client: SimClient) {
        client.pod.floor = max(client.pod.floor, model.truth.execution(of: token))
        arouse(client.pod, nil)
    }

    private func answer(_ client: SimClient, _ asked: Asked, _ value: RESPValue) {
        switch asked.kind {
        case .read(let keys):
            if value.isError { return }
            var values: [UInt64] = []
            if keys.count > 1 || asked.words[0] == "MGET".array {
                guard case .array(let items) = value, items.count == keys.count else {
                    return fail("\(client.name): \(asked.text) was answered with \(value.text.prefix(80))")
                }
                for item in items {
                    guard let one = hash(item) else { return fail("\(client.name): \(asked.text) got \(item.text)") }
                    values.append(one)
                }
            } else {
                guard let one = hash(value) else {
                    return fail("\(client.name): \(asked.text) was answered with \(value.text.prefix(80))")
                }
                values = [one]
            }
            cover("reads")
            judge(values, keys, asked, client)
        case .scriptRead(let key):
            if value.isError { return }
            guard let one = hash(value) else { return fail("\(client.name): \(asked.text) got \(value.text)") }
            judge([one], [key], asked, client)
        case .write(let keys, let token):
            if !value.isError {
                learn(token: token, keys: keys, client, asked)
                arouse(client.pod, keys.first)
            }
        case .script(let keys, let token):
            if value.isError { return }
            learn(token: token, keys: [], client, asked)
            arouse(client.pod, keys[0])
            /* Only announcements tell what it has written: it counts like what was read. */
            for key in keys where client.pod.loop.flow.status.tracking {
                client.pod.read[key] = max(client.pod.read[key], model.truth.execution(of: token))
                client.ownRead[key] = max(client.ownRead[key], model.truth.execution(of: token))
            }
        case .pass(let token):
            if !value.isError { learn(token: token, keys: [], client, asked) } else { tellOf(token, client) }
        case .exactly(let wanted):
            if !value.isError, value != wanted {
                fail(
                    "\(client.name): \(asked.text) was answered with \(value.text.prefix(80)): replies are out of order"
                )
            }
        case .plain: break
        case .watch: client.isWatching = !value.isError
        case .multi: client.isInMulti = !value.isError
        case .queued:
            if case .simple(let bytes) = value, bytes == "QUEUED".array { return }
            if !value.isError, client.isInMulti {
                fail("\(client.name): \(asked.text) was not queued: \(value.text.prefix(80))")
            }
        case .watchedRead(let key):
            client.watchedRead = nil
            guard let one = hash(value) else { return }
            judge([one], [key], asked, client)
            if client.isWatching { client.watchedRead = (key, one) }
        case .exec(let tokens, let keys, let isWatched):
            guard case .array = value else { return }
            for one in tokens { learn(token: one, keys: keys, client, asked) }
            arouse(client.pod, keys[0])
            if isWatched, let watched = client.watchedRead { judgeWatch(client, asked, tokens[0], watched) }
        case .pop:
            client.isBlocked = false
            guard case .array(let items) = value, items.count == 2, case .bulk(let item) = items[1] else { return }
            cover("pops")
            if let token = UpstreamModel.token(item) { tellOf(token, client) }
        case .subscribe:
            switch value {
            case .push(let items), .array(let items):
                if items.count == 3 { return }
                fail("\(client.name): \(asked.text) was answered with \(value.text)")
            default:
                if !value.isError { fail("\(client.name): \(asked.text) was answered with \(value.text)") }
            }
        }
    }

    /// EXEC went through: what was read under WATCH must have been there until then.
    private func judgeWatch(_ client: SimClient, _ asked: Asked, _ token: Int, _ watched: (key: Int, value: UInt64)) {
        let number = model.truth.execution(of: token)
        guard let last = model.truth.timelines[watched.key].last(where: { $0.from < number }) else { return }
        cover("watched transactions")
        if last.value != watched.value {
            fail(
                "\(client.name): EXEC went through though k\(watched.key) was \(shorten(last.value)) and not"
                    + " \(shorten(watched.value)), as it had read under WATCH")
        }
    }

    // MARK: what they do

    private func key() -> Int { chance.oneIn(2) ? 0 : chance.below(plan.keys) }

    private func generate(_ client: SimClient, _ commands: inout [[[UInt8]]], _ kinds: inout [Asked.Kind]) {
        func add(_ words: [[UInt8]], _ kind: Asked.Kind) {
            commands.append(words)
            kinds.append(kind)
        }
        switch client.habit {
        case .plain: addPlain(add)
        case .scripts: chance.oneIn(2) ? addScript(add) : addPlain(add)
        case .transactions: addTransaction(client, add)
        case .worker:
            if chance.oneIn(2) { return addPlain(add) }
            add(["BLPOP".array, "q0".array, "q1".array, chance.pick(["0.05".array, "0.3".array, "2".array])], .pop)
            client.isBlocked = true
        case .subscriber:
            if chance.oneIn(3) {
                add(
                    [chance.oneIn(4) ? "UNSUBSCRIBE".array : "SUBSCRIBE".array, [UInt8]("c", chance.below(2))],
                    .subscribe)
            }
        case .otherDatabase:
            if commands.isEmpty, client.asked.isEmpty { add(["SELECT".array, "1".array], .plain) }
            let key = [UInt8]("k", key())
            let token = token()
            switch chance.below(4) {
            case 0: add(["SET".array, key, value(token)], .pass(token: token))
            case 1: add(["DEL".array, key, [UInt8]("#", token)], .pass(token: token))
            case 2: add(["MOVE".array, key, "0".array], .plain)
            default: add(["GET".array, key], .plain)
            }
        }
    }

    private func addPlain(_ add: ([[UInt8]], Asked.Kind) -> Void, mayRead: Bool = true) {
        let number = key()
        let key = [UInt8]("k", number)
        let token = token()
        if mayRead, plan.fillers > 0, chance.oneIn(4) {
            return add(["GET".array, [UInt8]("f", chance.below(plan.fillers))], .plain)
        }
        switch mayRead && chance.below(10) < plan.readsOfTen ? chance.below(13) : chance.below(30) {
        case 0...9:
            add(["GET".array, key], .read([number]))
        case 10...12:
            let keys = (0..<1 + chance.below(4)).map { _ in self.key() }
            add(["MGET".array] + keys.map { [UInt8]("k", $0) }, .read(keys))
        case 13...15:
            add(["SET".array, key, value(token)], .write([number], token: token))
        case 16:
            let ms = [UInt8](decimal: 1 + chance.below(400))
            add(["SET".array, key, value(token), "PX".array, ms], .write([number], token: token))
        case 17:
            let other = self.key()
            if other == number { return add(["GET".array, key], .read([number])) }
            let second = self.token()
            add(
                ["MSET".array, key, value(token), [UInt8]("k", other), value(second)],
                .write([number, other], token: token))
        case 18:
            add(["DEL".array, key, [UInt8]("#", token)], .write([number], token: token))
        case 19:
            add(["APPEND".array, key, value(token)], .write([number], token: token))
        case 20:
            add(["PEXPIRE".array, key, [UInt8](decimal: 1 + chance.below(300))], .plain)
        case 21:
            add(["RENAME".array, key, [UInt8]("k", self.key())], .plain)
        case 22:
            add(["COPY".array, key, [UInt8]("k", self.key()), "REPLACE".array], .plain)
        case 23:
            add(["HSET".array, "h".array, [UInt8]("#", token), "1".array], .pass(token: token))
        case 24:
            add(["HGET".array, "h".array, [UInt8]("#", token)], .pass(token: token))
        case 25:
            add(["ECHO".array, [UInt8]("e", token)], .exactly(.bulk([UInt8]("e", token))))
        case 26:
            add(["XPENDING".array, "x".array, [UInt8]("#", token)], .pass(token: token))
        case 27:
            add(["RPUSH".array, [UInt8]("q", chance.below(2)), value(token)], .pass(token: token))
        case 28:
            add(["PUBLISH".array, [UInt8]("c", chance.below(2)), [UInt8]("#", token)], .pass(token: token))
        default:
            switch chance.below(12) {
            case 0: add(["FLUSHALL".array], .plain)
            case 1:
                /* Nothing announces it: another pod's is a documented limit. */
                if pods.count == 1 { add(["SWAPDB".array, "0".array, "1".array], .plain) }
            case 2: add(["MOVE".array, key, "1".array], .plain)
            case 3: add(["GETDEL".array, key], .plain)
            case 4: add(["SET".array, key, value(token), "NX".array], .write([number], token: token))
            case 5: add(["SET".array, key, value(token), "GET".array], .write([number], token: token))
            case 6: add(["GETEX".array, key, "PX".array, [UInt8](decimal: 5 + chance.below(300))], .plain)
            case 7: add(["PERSIST".array, key], .plain)
            case 8: add(["EXISTS".array, key, [UInt8]("#", token)], .pass(token: token))
            case 9:
                add(
                    ["PSETEX".array, key, [UInt8](decimal: 1 + chance.below(300)), value(token)],
                    .write([number], token: token))
            default: add(["PING".array], .exactly(.simple("PONG".array)))
            }
        }
    }

    private func addScript(_ add: ([[UInt8]], Asked.Kind) -> Void) {
        let number = key()
        let key = [UInt8]("k", number)
        if chance.oneIn(3) {
            add(["EVAL".array, UpstreamModel.getScript, "0".array, key], .scriptRead(number))
        } else {
            let token = token()
            add(
                ["EVAL".array, UpstreamModel.setScript, "0".array, key, value(token)],
                .script([number], token: token))
        }
    }

    private func addTransaction(_ client: SimClient, _ add: ([[UInt8]], Asked.Kind) -> Void) {
        if let queued = client.queued {
            client.queued = nil
            return add(["EXEC".array], .exec(tokens: queued.tokens, keys: queued.keys, isWatched: false))
        }
        let number = key()
        let key = [UInt8]("k", number)
        switch chance.below(4) {
        case 0:
            addPlain(add)
        case 3:
            /* EXEC comes later. */
            let token = token()
            add(["MULTI".array], .multi)
            add(["SET".array, key, value(token)], .queued)
            client.queued = ([token], [number])
        case 1:
            /* An optimistic write, in one burst: what it read shows whether it may go through. */
            let token = token()
            add(["WATCH".array, key], .watch)
            add(["GET".array, key], .watchedRead(number))
            add(["MULTI".array], .multi)
            add(["SET".array, key, value(token)], .queued)
            add(["EXEC".array], .exec(tokens: [token], keys: [number], isWatched: true))
        default:
            let other = self.key()
            let first = token(), second = token()
            add(["UNWATCH".array], .plain)
            add(["MULTI".array], .multi)
            add(["SET".array, key, value(first)], .queued)
            if other != number { add(["SET".array, [UInt8]("k", other), value(second)], .queued) }
            let tokens = other == number ? [first] : [first, second]
            add(["EXEC".array], .exec(tokens: tokens, keys: [number, other], isWatched: false))
        }
    }

    // MARK: writers elsewhere

    private func write(_ index: Int) {
        if isHealed { return }
        defer {
            let pause = plan.lengthNs / UInt64(plan.commands / 2) * plan.writersPause
            queue.push(nowNs + chance.between(pause / 4, pause * 3), .write(index))
        }
        if chance.oneIn(20) { snapshot = model.snapshot() }
        if chance.oneIn(5) { model.expireSome(&chance) }
        if isDown || nowNs < frozenUntilNs || writers[index].isClosed || model.isLoading { return }
        var commands: [[[UInt8]]] = []
        func add(_ words: [[UInt8]], _ kind: Asked.Kind) { commands.append(words) }
        switch chance.below(6) {
        case 0...2: addPlain(add, mayRead: false)
        case 3:
            let token = token()
            add(["SET".array, [UInt8]("k", key()), value(token)], .plain)
            add(["PUBLISH".array, [UInt8]("c", chance.below(2)), [UInt8]("#", self.token())], .plain)
        case 4:
            add(["SET".array, [UInt8]("k", key()), value(token())], .plain)
            add(["RPUSH".array, [UInt8]("q", chance.below(2)), [UInt8]("v", self.token())], .plain)
        default: addScript(add)
        }
        for words in commands {
            if words[0] == "ECHO".array || words[0] == "PING".array || words[0] == "SWAPDB".array { continue }
            note(
                "writer\(index): \(words.map { String(decoding: $0.prefix(24), as: UTF8.self) }.joined(separator: " "))"
            )
            _ = model.perform(words, on: writers[index])
            writers[index].out.removeAll()
        }
        flushModel()
    }
}

extension [UInt8] {
    init(decimal: Int) {
        self = []
        append(decimal: decimal)
    }
}
