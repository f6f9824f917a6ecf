import CFastPath

@testable import Sidecar

/// Clients — connections of the application: they come, ask, are told, and go.
extension World {
    func connect(_ client: SimClient) {
        client.forget()
        client.id = nextClient
        nextClient += 1
        client.wire = fp_sim_connect(client.pod.sim)
        client.isConnected = true
        let wire = Wire(client.wire, .client(client))
        client.pod.add(wire)
        fp_sim_room(client.pod.sim, client.wire, plan.roomBytes)
        stir(client.pod)
        if client.habit != .otherDatabase, chance.oneIn(2) {
            ask(client, [["HELLO".array, "3".array]], [.plain])
        }
    }

    /// The pod has closed it: of what was not answered nobody knows whether it was done. What was done counts like an
    /// own write: nothing from before it may be served.
    func closed(_ client: SimClient) {
        for asked in client.asked {
            var keys: [Int] = []
            var number = 0
            if case .write(let written, let token) = asked.kind {
                (keys, number) = (written, model.truth.execution(of: token))
            }
            if case .change(let changed, _) = asked.kind {
                (keys, number) = (changed, change(asked, client.pod) ?? 0)
            }
            for key in keys { client.pod.written[key] = max(client.pod.written[key], number) }
        }
    }

    /// The number of a change, or of one like it that the pod had sent before; nil when it has not been carried out.
    func change(_ asked: Asked, _ pod: Pod) -> Int? {
        model.truth.change(asked.words, after: asked.began) { podOfConnection[$0] == pod.index }
    }

    func disconnected(_ client: SimClient) {
        guard client.isConnected else { return }
        note("\(client.name) is disconnected with \(client.asked.count) unanswered")
        cover("disconnections")
        client.forget()
        if client.isFinal { return fail("\(client.name) was closed though all is well") }
        queue.push(nowNs + chance.between(millisecond, 200 * millisecond), .act(client))
    }

    func token() -> Int {
        nextToken += 1
        return nextToken - 1
    }

    func value(_ token: Int) -> [UInt8] {
        var bytes = [UInt8]("v", token)
        if chance.oneIn(2) {
            bytes.append(UInt8(ascii: "-"))
            bytes.append(contentsOf: repeatElement(UInt8(ascii: "x"), count: chance.below(plan.valueBytesMax)))
        }
        if keepsHistory { valueNames[Truth.hash(bytes)] = "v\(token)" }
        return bytes
    }

    func hash(_ value: RESPValue) -> UInt64? {
        switch value {
        case .bulk(let bytes): Truth.hash(bytes)
        case .null: 0
        default: nil
        }
    }

    private static let stateful: Set<[UInt8]> = Set(
        [
            "BLPOP", "CLIENT", "MULTI", "PSUBSCRIBE", "PUNSUBSCRIBE", "RESET", "SELECT", "SUBSCRIBE", "UNSUBSCRIBE",
            "UNWATCH", "WATCH",
        ].map(\.array))

    /// Sends commands in one piece.
    func ask(_ client: SimClient, _ commands: [[[UInt8]]], _ kinds: [Asked.Kind]) {
        var bytes: [UInt8] = []
        for (words, kind) in zip(commands, kinds) {
            bytes.appendCommand(words)
            var keys: [Int] = []
            if case .read(let read) = kind { keys = read }
            if case .readTogether(let read) = kind { keys = read }
            if case .scriptRead(let key) = kind { keys = [key] }
            if case .watchedRead(let key) = kind { keys = [key] }
            if case .change(_, let key?) = kind { keys = [key] }
            if case .unnamedRead = kind { keys = Array(0..<plan.keys) }
            cover("commands")
            if Self.stateful.contains(words[0]) { client.hasState = true }
            client.asked.append(
                Asked(
                    kind: kind, words: words, atNs: nowNs, began: model.truth.now, floor: client.pod.floor,
                    leastRead: keys.map { client.pod.read[$0] }, leastServed: keys.map { client.pod.served[$0] },
                    leastWritten: keys.map { max(client.pod.written[$0], unresolved($0, client.pod)) },
                    flightsSinceNs: keys.map { oldestRead(of: $0, client.pod) }))
            if plan.isBehind { noteSent(&client.asked[client.asked.count - 1], client, keys) }
            note("\(client.name) → \(client.asked[client.asked.count - 1].text)")
        }
        client.commandsLeft -= commands.count
        guard let wire = client.pod.wire(client.wire) else { return }
        let pod = client.pod
        send(bytes, &wire.toEngine, plan.clientDelayNs) { .toEngine(pod, wire, $0) }
    }

    /// While the upstream is unreachable: the last write of the key that is unanswered in the pod, and was carried out.
    func unresolved(_ key: Int, _ pod: Pod) -> Int {
        guard pod.isUnreachable else { return 0 }
        var last = 0
        for client in clients where client.pod === pod {
            for asked in client.asked {
                switch asked.kind {
                case .write(let keys, let token) where keys.contains(key):
                    last = max(last, model.truth.execution(of: token))
                case .exec(let tokens, let keys, _) where keys.contains(key):
                    for token in tokens { last = max(last, model.truth.execution(of: token)) }
                default: break
                }
            }
        }
        return last
    }

    func oldestRead(of key: Int, _ pod: Pod) -> UInt64 {
        var oldest = nowNs
        /* What nobody has asked for, or waits for any more, takes readers as well, within the time of any other. */
        let name = [UInt8]("k", key)
        let fetched = fp_sim_fetch_since(pod.loop.engine.engine, name, name.count)
        if fetched != 0 { oldest = max(min(fetched, nowNs), nowNs - min(nowNs, plan.joinableNs)) }
        for client in clients where client.pod === pod {
            for asked in client.asked {
                guard case .read(let keys) = asked.kind, keys.contains(key) else { continue }
                /* Nothing is fetched while the pod stands still. */
                let stood = asked.atNs >= pod.stalledFromNs && asked.atNs < pod.stalledUntilNs
                oldest = min(oldest, stood ? pod.stalledUntilNs : asked.atNs)
            }
        }
        /* Nor does a fetch take anybody after read_timeout. */
        return max(oldest, nowNs - min(nowNs, plan.longestFetchNs))
    }

    /// Something has become known in a pod, perhaps of this key: somebody looks at once.
    func arouse(_ pod: Pod, _ key: Int?) {
        guard plan.curiosity > 0, !isHealed, chance.oneIn(plan.curiosity) else { return }
        let others = clients.filter { $0.pod === pod && $0.habit == .plain && !$0.isFinal }
        let reader = chance.pick(others)
        queue.push(nowNs + chance.below(60_000), .look(reader, key ?? self.key()))
    }

    /// What was held arrives from then on: many look, at one key or at all.
    func lookAround(_ pod: Pod, _ timeNs: UInt64, key: Int? = nil) {
        let others = clients.filter { $0.pod === pod && $0.habit == .plain && !$0.isFinal }
        for _ in 0..<(key == nil ? 12 : 4) {
            queue.push(timeNs + chance.below(4 * plan.delayNs.high), .look(chance.pick(others), key ?? self.key()))
        }
    }

    /// What was held comes, one piece behind the other: between them somebody looks.
    func lookAsItHears(_ pod: Pod, _ wire: Wire) {
        let sinceNs = pod.missedFromNs
        guard !pod.missedKeys.isEmpty, nowNs >= sinceNs, nowNs - sinceNs < 20 * plan.delayNs.high else { return }
        let others = clients.filter { $0.pod === pod && $0.habit == .plain && !$0.isFinal }
        queue.push(nowNs + 60_000 + chance.below(60_000), .look(chance.pick(others), chance.pick(pod.missedKeys)))
    }

    func act(_ client: SimClient) {
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
}
