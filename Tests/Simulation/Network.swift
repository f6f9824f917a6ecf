import CFastPath

/// Network — how bytes and ends travel between a pod and its clients and upstream: late, in pieces, in order.
extension World {
    func delay(_ range: (low: UInt64, high: UInt64)) -> UInt64 {
        chance.oneIn(30) ? range.high * 2 : chance.between(range.low, range.high)
    }

    func arrive(_ channel: inout Channel, _ range: (low: UInt64, high: UInt64), _ event: Event) {
        if channel.heldUntilNs == .max { return }
        var timeNs = max(channel.lastNs, nowNs + delay(range) + channel.extraNs)
        /* What was held comes in pieces too, and one behind the other. */
        if timeNs < channel.heldUntilNs {
            timeNs = max(channel.heldUntilNs, channel.lastNs) + chance.below(range.high / 4)
        }
        timeNs = max(timeNs, channel.lastNs)
        channel.lastNs = timeNs
        queue.push(timeNs, event)
    }

    func send(
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

    func flushModel() {
        for connection in model.connections { flush(connection) }
        for connection in model.quitters {
            flush(connection)
            if let (_, wire) = wiresByConnection[connection.id] { endToEngine(wire) }
        }
        model.quitters = []
        planTime()
    }

    func flush(_ connection: UpstreamModel.Connection) {
        guard !connection.out.isEmpty else { return }
        let bytes = connection.out
        connection.out.removeAll(keepingCapacity: true)
        guard let (pod, wire) = wiresByConnection[connection.id], !wire.isCut else { return }
        send(bytes, &wire.toEngine, plan.delayNs) { .toEngine(pod, wire, $0) }
    }

    func endToEngine(_ wire: Wire) {
        guard let connection = wire.connection, let (pod, _) = wiresByConnection[connection.id], !wire.isCut else {
            return
        }
        arrive(&wire.toEngine, plan.delayNs, .endToEngine(pod, wire, 0))
    }

    func planTime() {
        let next = model.nextDeadlineNs
        if next < timeAtNs {
            timeAtNs = next
            queue.push(max(next, max(nowNs, frozenUntilNs)), .time)
        }
    }
}
