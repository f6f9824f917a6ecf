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
        case .misconf(let length):
            model.cannotSave = true
            for wire in pod.links where chance.oneIn(2) { cut(pod, wire, reset: true) }
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
            for pod in pods { pod.wasUpWhenFull = pod.loop.flow.tracked.isUp }
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
        case .seenThenGone(let length):
            return seenThenGone(pod, length)
        case .ownFetch:
            return ownFetch(pod)
        case .fetchedThenGone(let length):
            return fetchedThenGone(pod, length)
        case .killed:
            guard pod.disk != nil else { return false }
            crash(pod)
        case .diskFull(let length):
            guard let disk = pod.disk else { return false }
            disk.isFull = true
            queue.push(nowNs + length, .heal(fault))
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
            /* What is fetched when it begins has come when it ends, and is old by then. */
            lookAround(pod, nowNs + 4 * plan.delayNs.high)
        }
        return true
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
        case .misconf: model.cannotSave = false
        case .diskFull: for pod in pods { pod.disk?.isFull = false }
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
        model.cannotSave = false
        model.password = nil
        model.refusesTracking = false
        for index in writers.indices where writers[index].isClosed { writers[index] = model.connect() }
        for client in clients { client.commandsLeft = 0 }
        for pod in pods {
            pod.disk?.isFull = false
            pod.stalledUntilNs = 0
            pod.mutedUntilNs = 0
            /* What is half open and owes nothing is found by TCP's keepalive, in 45 s; here sooner. */
            for wire in pod.wires.compactMap({ $0 }) where wire.toEngine.heldUntilNs == .max && !wire.isOver {
                queue.push(nowNs + 5 * second, .endToEngine(pod, wire, 110))
            }
            stir(pod)
        }
    }
}
