/// Fencing — rule 3: what reaches a client otherwise than in the tracked link's order is delivered only when every change
/// that the upstream announced before has been applied.
///
/// Between two links there is no order. A job popped on a pinned link may have been pushed by somebody who wrote a key
/// first; its invalidation may still be on its way on the tracked link when the job is here. Who holds the job would then
/// read the old value from the store. So the job waits in its slot until a PING, sent on the tracked link after the job
/// came, has been answered: the upstream wrote the invalidation to that link before it ran the PING. One PING at the end
/// of a turn serves all that came in it.
///
/// The reply to a command whose keys are unknown needs the same on the tracked link itself, since the pushes for what it
/// wrote come behind its reply. There the PING is sent right behind the command, and costs no further round trip.
///
/// Without tracking nothing waits, since there is no announcement to wait for, unless writes are queued: those that the
/// upstream has carried out must be known to be, or they would answer reads behind what was written after them. Nor does
/// anything wait while the link is silent or lost, since then no entry of its epoch is served until it has been fetched
/// again. Nor does a fetch that is under way take anybody then who has been told of more: it may have read before that.
extension Flow {
    /// The fence for what has come just now by a link other than the tracked one.
    @inline(__always)
    mutating func fence() -> FenceID {
        guard policy.fence, tracked.isUp, tracked.tracking || policy.writesBehind else { return 0 }
        if tracked.heartbeat.isSilent { orders.closeFlights() }
        return tracked.heartbeat.fence()
    }

    /// Ends every turn: one PING for all that asked for a fence.
    mutating func sendFence() {
        guard tracked.isUp, tracked.heartbeat.isWanted else { return }
        trackedStatus.fences &+= 1
        sendPing()
    }

    mutating func sendPing() {
        orders.send(tracked.link, Wire.ping)
        owe(OwedReply(ticket: 0, sentNs: nowNs, awaited: .pong, flags: []))
        tracked.heartbeat.pinged(nowNs)
    }

    mutating func heardPong(sentNs: UInt64) {
        trackedStatus.roundTripNs = nowNs &- sentNs
        let wasLate = tracked.heartbeat.isLate
        if wasLate || nowNs &- sentNs < policy.readTimeoutNs { breaker.succeeded() }
        tracked.heartbeat.ponged(nowNs, sentNs: sentNs)
        orders.passFence(tracked.heartbeat.answered)
        closeProbe()
        if wasLate { reach.isUnreachable = false }
        publishTrust()
        guard wasLate else { return }
        if !tracked.heartbeat.isLate { notices.append(.resumed) }
    }

    /// Nothing need wait any longer: no entry of the epoch is served untried, and no fetch under way takes who has waited.
    func passAllFences() {
        orders.closeFlights()
        orders.passFence(.max)
    }
}
