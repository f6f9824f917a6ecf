import CFastPath

@testable import Sidecar

/// Faults — what goes wrong, and how it is mended.
extension World {
    func cut(_ pod: Pod, _ wire: Wire, reset: Bool) {
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

    func cutAll(reset: Bool) {
        for pod in pods { for wire in pod.links { cut(pod, wire, reset: reset) } }
        for index in writers.indices where writers[index].isClosed { writers[index] = model.connect() }
    }

    func inject(_ fault: Plan.Fault) {
        if isHealed { return }
        faultsInjected += 1
        let pod = chance.pick(pods)
        var fault = fault
        for _ in 0..<10 {
            if carryOut(fault, pod) {
                note("fault: \(fault)")
                return cover("fault \("\(fault)".prefix { $0 != "(" })")
            }
            /* It would find nothing to harm. Not any other: what may be asked follows from which are planned. */
            fault = chance.pick([
                .cut(reset: true, all: true), .restart(300 * millisecond), .clientDeaf(200 * millisecond),
            ])
        }
    }

    /// The link that falls silent.
    private func victim(_ pod: Pod) -> Wire? {
        if let tracked = pod.trackedWire, !chance.oneIn(6) { return tracked }
        return pod.links.isEmpty ? nil : chance.pick(pod.links)
    }

    /// False when there is nothing that it could harm.
    private func carryOut(_ fault: Plan.Fault, _ pod: Pod) -> Bool {
        switch fault {
        case .cut(let reset, let all):
            let links = pod.links.filter { _ in all || chance.oneIn(2) }
            for wire in links { cut(pod, wire, reset: reset) }
            return !links.isEmpty
        case .blackhole(let length):
            guard let wire = victim(pod) else { return false }
            beginSoon(pod) { [unowned self] in holdBack(pod, wire, length, $0) }
        case .halfOpen:
            guard let wire = victim(pod) else { return false }
            wire.toEngine.heldUntilNs = .max
            wire.fromEngine.heldUntilNs = .max
        case .freeze(let length):
            frozenUntilNs = max(frozenUntilNs, nowNs + length)
            queue.push(frozenUntilNs, .thaw)
            expectNoLoss(length)
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
        case .full(let length, let inWords):
            if isShut || model.isFull { return false }
            isShut = !inWords
            model.isFull = inWords
            fullAt = faultsInjected
            if let tracked = pod.trackedWire, chance.oneIn(2) {
                cut(pod, tracked, reset: true)
            } else {
                guard let wire = victim(pod) else { return false }
                wire.toEngine.heldUntilNs = max(wire.toEngine.heldUntilNs, nowNs + length)
            }
            let keys = [chance.below(plan.keys), chance.below(plan.keys)]
            tellMeanwhile(pod, keys, from: nowNs, to: nowNs + length, lookNs: nowNs + length / 2)
            queue.push(nowNs + length, .heal(fault))
        case .lateWrite(let length, let all):
            return lateWrite(pod, length, all)
        case .lag(let extra, let length):
            guard let wire = victim(pod) else { return false }
            wire.toEngine.extraNs = extra
            queue.push(nowNs + length, .heal(fault))
        case .clientGone(let reset):
            let client = chance.pick(clients)
            guard client.isConnected, let wire = client.pod.wire(client.wire) else { return false }
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
        case .stall(let length):
            beginSoon(pod) { [unowned self] in stall(pod, length, $0) }
        }
        return true
    }

    /// Some keys are read, so that there are copies; then it begins, whose they are. Any keys: what is asked for often is
    /// asked for meanwhile too, and then there is no copy at its end.
    private func beginSoon(_ pod: Pod, _ begin: @escaping ([Int]) -> Void) {
        let keys = (0..<3).map { _ in chance.below(plan.keys) }
        for key in keys { lookAround(pod, nowNs, key: key) }
        queue.push(nowNs + 6 * plan.delayNs.high, .begin { begin(keys) })
    }

    private func holdBack(_ pod: Pod, _ wire: Wire, _ length: UInt64, _ keys: [Int]) {
        wire.toEngine.heldUntilNs = max(wire.toEngine.heldUntilNs, nowNs + length)
        /* Half of them in one direction only. */
        if length & 1 == 0 { wire.fromEngine.heldUntilNs = max(wire.fromEngine.heldUntilNs, nowNs + length) }
        if length > 600 * millisecond, length < 2 * second {
            tellMeanwhile(pod, keys, from: nowNs + 520 * millisecond, to: nowNs + length, lookNs: nowNs + length)
        }
        if wire.toEngine.heldUntilNs != .max { lookAround(pod, wire.toEngine.heldUntilNs) }
    }

    private func lateWrite(_ pod: Pod, _ length: UInt64, _ all: Bool) -> Bool {
        let writers = clients.filter {
            $0.pod === pod && $0.isConnected && $0.hasState && !$0.isBlocked && $0.queued == nil
                && ($0.habit == .transactions || $0.habit == .plain)
        }
        let tracked = pod.trackedWire
        let others = pod.links.filter { $0 !== tracked }
        guard !writers.isEmpty, !others.isEmpty, tracked != nil else { return false }
        let number = chance.below(plan.keys)
        let carriedOutNs = nowNs + 8 * plan.delayNs.high
        for wire in others { wire.fromEngine.heldUntilNs = max(wire.fromEngine.heldUntilNs, carriedOutNs) }
        if !all, plan.forgetsNothing, pods.count == 1 {
            ask(
                chance.pick(writers), [["SWAPDB", "0", "1"].map(\.array)], [.change(Array(0..<plan.keys), returns: nil)]
            )
        } else {
            let token = token()
            let words = ["SET".array, [UInt8]("k", number), value(token)]
            ask(chance.pick(writers), [words], [.write([number], token: token)])
        }
        lookAround(pod, nowNs + plan.delayNs.high, key: number)
        lookAround(pod, nowNs + plan.delayNs.high)
        let silent = { (wire: Wire) in
            wire.toEngine.heldUntilNs = max(wire.toEngine.heldUntilNs, carriedOutNs + length)
        }
        queue.push(
            carriedOutNs - plan.delayNs.high,
            .begin { [unowned self] in
                if isHealed { return }
                if all { pod.mutedUntilNs = carriedOutNs + length }
                for wire in all ? pod.links : others { silent(wire) }
            })
        for _ in 0..<6 { lookAround(pod, chance.between(carriedOutNs, carriedOutNs + length), key: number) }
        for _ in 0..<3 { lookAround(pod, carriedOutNs + 2 * plan.delayNs.high) }
        return true
    }

    private func stall(_ pod: Pod, _ length: UInt64, _ keys: [Int]) {
        if isHealed { return }
        if nowNs >= pod.stalledUntilNs { pod.stalledFromNs = nowNs }
        pod.stalledUntilNs = max(pod.stalledUntilNs, nowNs + length)
        let endNs = pod.stalledUntilNs - 2 * plan.delayNs.high
        tellMeanwhile(pod, keys, from: nowNs, to: nowNs + 100 * millisecond, lookNs: endNs)
        lookAround(pod, endNs)
        if chance.oneIn(2), let wire = pod.trackedWire {
            wire.toEngine.heldUntilNs = max(wire.toEngine.heldUntilNs, pod.stalledUntilNs + second)
        }
        lookAround(pod, pod.stalledUntilNs)
    }

    /// Keys are written, and who can be told by other links is told; from `lookNs` on they are read.
    private func tellMeanwhile(_ pod: Pod, _ keys: [Int], from: UInt64, to: UInt64, lookNs: UInt64) {
        for key in keys {
            queue.push(chance.between(from, to), .tell(key))
            lookAround(pod, lookNs, key: key)
        }
    }

    func tell(_ key: Int) {
        guard !isDown, !model.isLoading, nowNs >= frozenUntilNs, !writers[0].isClosed else { return }
        for words in [
            ["SET".array, [UInt8]("k", key), value(token())],
            ["PUBLISH".array, "c0".array, [UInt8]("#", token())],
            ["PUBLISH".array, "c1".array, [UInt8]("#", token())],
            ["RPUSH".array, "q0".array, [UInt8]("v", token())],
        ] {
            note("writer0: \(Asked.text(of: words))")
            _ = model.perform(words, on: writers[0])
            writers[0].out.removeAll()
        }
        flushModel()
    }

    /// An upstream that is only slow costs no link: looked at when it is the first thing that goes wrong.
    private func expectNoLoss(_ length: UInt64) {
        guard faultsInjected == 1, length + 200 * millisecond < plan.config.linkTimeoutMs * millisecond,
            pods.allSatisfy({ $0.loop.flow.tracked.isUp })
        else { return }
        let losses = pods.map { $0.loop.flow.status.reconnects }
        queue.push(frozenUntilNs + 200 * millisecond, .slow(losses: losses, faults: faultsInjected))
    }

    func lookAfterSlow(_ losses: [UInt64], _ faults: Int) {
        guard faults == faultsInjected else { return }
        cover("rule 6: a slow upstream costs no link")
        for (pod, before) in zip(pods, losses) where pod.loop.flow.status.reconnects != before {
            fail("pod\(pod.index) has lost its tracked link to an upstream that was only slow")
        }
    }

    /// All connections are reset and none is taken.
    func stop() {
        isDown = true
        for pod in pods { for wire in pod.links { cut(pod, wire, reset: true) } }
        model.restart()
    }

    func heal(_ fault: Plan.Fault) {
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
        case .full:
            isShut = false
            model.isFull = false
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

    func heal() {
        note("all is healed")
        isHealed = true
        plan.delayNs = (20_000, 200_000)
        for pod in pods { for wire in pod.links { wire.toEngine.extraNs = 0 } }
        isDown = false
        isShut = false
        model.isFull = false
        model.isLoading = false
        model.password = nil
        model.refusesTracking = false
        for index in writers.indices where writers[index].isClosed { writers[index] = model.connect() }
        for client in clients { client.commandsLeft = 0 }
        for pod in pods {
            pod.stalledUntilNs = 0
            pod.mutedUntilNs = 0
            stir(pod)
        }
    }
}
