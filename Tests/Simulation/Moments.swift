import CFastPath

@testable import Sidecar

/// Moments — faults of which the moment matters: what is read before, who is told of what meanwhile, and who looks behind
/// them. Left to chance alone, some rules would hardly ever be needed.
extension World {
    /// Some keys are read, so that there are copies; then it begins, whose they are. Any keys: what is asked for often is
    /// asked for meanwhile too, and then there is no copy at its end. So half of the time one is among them of which nobody
    /// else takes notice.
    func beginSoon(_ pod: Pod, _ begin: @escaping ([Int]) -> Void) {
        var keys = (0..<3).map { _ in chance.below(plan.keys) }
        if chance.oneIn(2) {
            keys[0] = plan.quietKey
            tell(plan.quietKey)
        }
        for key in keys { lookAround(pod, nowNs, key: key) }
        queue.push(nowNs + 6 * plan.delayNs.high, .begin { begin(keys) })
    }

    func holdBack(_ pod: Pod, _ wire: Wire, _ length: UInt64, _ keys: [Int]) {
        wire.toEngine.heldUntilNs = max(wire.toEngine.heldUntilNs, nowNs + length)
        /* Half of them in one direction only. */
        if length & 1 == 0 { wire.fromEngine.heldUntilNs = max(wire.fromEngine.heldUntilNs, nowNs + length) }
        if length > 600 * millisecond, length < 2 * second {
            tellMeanwhile(pod, keys, from: nowNs + 520 * millisecond, to: nowNs + length, lookNs: nowNs + length)
            if chance.oneIn(2) { holdBackMore(wire, at: chance.between(500 * millisecond, length), length) }
        }
        if wire.toEngine.heldUntilNs != .max { lookAround(pod, wire.toEngine.heldUntilNs) }
    }

    /// What comes from then on is a while behind what came before: a PONG that says nothing of who is told meanwhile.
    private func holdBackMore(_ wire: Wire, at startNs: UInt64, _ length: UInt64) {
        let untilNs = nowNs + length + 6 * plan.delayNs.high
        queue.push(
            nowNs + startNs,
            .begin { [unowned self] in
                if !isHealed { wire.toEngine.heldUntilNs = max(wire.toEngine.heldUntilNs, untilNs) }
            })
    }

    func lateWrite(_ pod: Pod, _ length: UInt64, _ all: Bool) -> Bool {
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

    /// A transaction has queued its reads when copies of them are made; what they find is newer than these.
    func seenThenGone(_ pod: Pod, _ length: UInt64) -> Bool {
        let readers = clients.filter {
            $0.pod === pod && $0.habit == .transactions && $0.isConnected && $0.hasState && $0.asked.isEmpty
                && $0.queued == nil && !$0.isBlocked
        }
        guard !readers.isEmpty, let tracked = pod.trackedWire else { return false }
        let reader = chance.pick(readers)
        reader.isBlocked = true
        beginSoon(pod) { [unowned self] keys in
            guard reader.isBlocked, !isHealed else { return }
            let reads = keys.map { ["GET".array, [UInt8]("k", $0)] }
            ask(reader, [["MULTI".array]] + reads, [.multi] + reads.map { _ in .queued })
            let silentNs = nowNs + 14 * plan.delayNs.high
            let goneNs = silentNs + 2 * second
            for key in keys { lookAround(pod, nowNs + 6 * plan.delayNs.high, key: key) }
            queue.push(
                silentNs,
                .begin { [unowned self] in
                    tracked.toEngine.heldUntilNs = max(tracked.toEngine.heldUntilNs, goneNs + second)
                    for key in keys { tell(key) }
                })
            queue.push(silentNs + 100 * millisecond, .begin { [unowned self] in readTogether(keys, reader) })
            queue.push(goneNs, .begin { [unowned self] in if !isHealed { stop() } })
            queue.push(goneNs + length, .heal(.restart(length)))
            for key in keys { lookAround(pod, chance.between(goneNs, goneNs + length), key: key) }
        }
        return true
    }

    /// The copy of an ended epoch is fetched anew on a link that is suspended meanwhile: what comes is told, and not kept.
    func fetchedThenGone(_ pod: Pod, _ length: UInt64) -> Bool {
        let readers = clients.filter { $0.pod === pod && $0.habit == .plain && $0.isConnected && !$0.isFinal }
        guard let reader = readers.first, pod.trackedWire != nil else { return false }
        let longest = min(plan.config.readTimeoutMs, plan.config.linkTimeoutMs, 1_800) - 150
        beginSoon(pod) { [unowned self] keys in
            if isHealed { return }
            for wire in pod.links { cut(pod, wire, reset: true) }
            tell(keys[0])
            let askNs = nowNs + 16 * plan.delayNs.high
            let goneNs = askNs + longest * millisecond + 4 * plan.delayNs.high
            queue.push(
                askNs,
                .begin { [unowned self] in
                    guard !isHealed, reader.isConnected, let tracked = pod.trackedWire else { return }
                    ask(reader, [["GET".array, [UInt8]("k", keys[0])]], [.read([keys[0]])])
                    tracked.toEngine.heldUntilNs = max(tracked.toEngine.heldUntilNs, askNs + longest * millisecond)
                })
            queue.push(goneNs, .begin { [unowned self] in if !isHealed { stop() } })
            queue.push(goneNs + length, .heal(.restart(length)))
            for _ in 0..<3 { lookAround(pod, chance.between(goneNs, goneNs + length / 2), key: keys[0]) }
        }
        return true
    }

    func ownFetch(_ pod: Pod) -> Bool {
        let readers = clients.filter {
            $0.pod === pod && $0.habit == .plain && $0.isConnected && !$0.hasState && $0.asked.isEmpty && !$0.isFinal
        }
        guard readers.count > 1, !plan.isBehind, let tracked = pod.trackedWire, plan.config.readTimeoutMs <= 200 else {
            return false
        }
        let reader = readers[0]
        let key = plan.quietKey
        let name = [UInt8]("k", key)
        let step = 2 * plan.delayNs.high
        let startNs = nowNs + 6 * step
        let heldNs = startNs + 3 * step
        ask(readers[1], [["GET".array, name]], [.read([key])])
        let then = { [unowned self] (timeNs: UInt64, what: @escaping () -> Void) in
            queue.push(timeNs, .begin { [unowned self] in if !isHealed, reader.isConnected { what() } })
        }
        then(startNs) { [unowned self] in ask(reader, [["STRLEN".array, name]], [.plain]) }
        then(startNs + 150_000) { [unowned self] in
            tracked.fromEngine.heldUntilNs = max(tracked.fromEngine.heldUntilNs, heldNs + step)
            ask(reader, [["GET".array, name]], [.read([key])])
        }
        then(heldNs) { [unowned self] in
            let endNs = heldNs + max(4 * step, (plan.config.readTimeoutMs + 5) * millisecond)
            tracked.toEngine.heldUntilNs = max(tracked.toEngine.heldUntilNs, endNs - step / 2)
            if nowNs >= pod.stalledUntilNs { pod.stalledFromNs = nowNs }
            pod.stalledUntilNs = max(pod.stalledUntilNs, endNs)
            tell(key)
            ask(reader, [["GET".array, name]], [.read([key])])
        }
        return true
    }

    private func readTogether(_ keys: [Int], _ reader: SimClient) {
        guard reader.isBlocked, !isHealed else { return }
        reader.isBlocked = false
        ask(reader, [["EXEC".array]], [.readTogether(keys)])
    }

    func stall(_ pod: Pod, _ length: UInt64, _ keys: [Int]) {
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
    func tellMeanwhile(_ pod: Pod, _ keys: [Int], from: UInt64, to: UInt64, lookNs: UInt64) {
        pod.missedKeys = keys
        pod.missedFromNs = lookNs
        for key in keys {
            queue.push(chance.between(from, to), .tell(key))
            lookAround(pod, lookNs, key: key)
        }
    }

    func tell(_ key: Int) {
        guard !plan.isBehind, !isDown, !model.isLoading, !model.cannotSave, nowNs >= frozenUntilNs, !writers[0].isClosed
        else { return }
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
    func expectNoLoss(_ length: UInt64) {
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
}
