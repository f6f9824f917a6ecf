/// Passthrough — commands that are not cached travel as they came, on the tracked link or on the shared RESP2 link.

/// A link in RESP2 for replies that cannot be derived from RESP3's, made when the first such command comes.
struct SharedLink: ~Copyable {
    enum Phase {
        /// May be tried again from then on.
        case idle(notBeforeNs: UInt64)
        case opening(deadlineNs: UInt64)
        case ready
    }

    /// A command that came while the link was being made; its bytes are in `pendingBytes`.
    struct Pending {
        var slot: SlotID
        var length: Int
        var isPureRead: Bool
    }

    var phase = Phase.idle(notBeforeNs: 0)
    var link: LinkID = 0
    var machine = LinkMachine(.plain(protocolVersion: 2), Credentials(username: "", password: Secret("")))
    var owed = Owed(capacity: 64)
    var pending: [Pending] = []
    var pendingBytes: [UInt8] = []

    /// Past its handshake.
    var isOpen: Bool { if case .ready = phase { link != 0 } else { false } }
    /// When it last said something.
    var heardNs: UInt64 = 0

    /// It has no heartbeat: what is owed for so long shows that it is silent.
    func deadlineNs(linkTimeoutNs: UInt64) -> UInt64 {
        if case .opening(let deadlineNs) = phase { return deadlineNs }
        guard let oldest = owed.first?.pointee.sentNs else { return .max }
        return max(oldest, heardNs) &+ linkTimeoutNs
    }
}

extension Flow {
    @inline(__always)
    mutating func pass(_ event: Event) {
        switch event.lane {
        case .tracked: passTracked(event)
        case .resp2: passShared(event)
        case .pinned: passPinned(event)
        }
    }

    @inline(__always)
    private mutating func passTracked(_ event: Event) {
        guard tracked.isUp else {
            refuse(event.ticket)
            return
        }
        orders.send(tracked.link, event.bytes)
        var flags: OwedReply.Flags = event.isPureRead ? .pureRead : []
        /* Under broadcast it is asked for when the reply has come. */
        if event.mayWriteUnknownKeys, policy.tracking.isBroadcast ? policy.fence : fence() != 0 { flags = .fenced }
        owe(OwedReply(ticket: event.ticket, sentNs: nowNs, awaited: .answer, flags: flags))
    }

    /// What was not sent gets an error at once.
    func refuse(_ slot: SlotID) {
        let error = reach.error
        error.withUnsafeBufferPointer { orders.answerError(slot, $0) }
    }

    // MARK: the shared RESP2 link

    private mutating func passShared(_ event: Event) {
        /* A server that speaks nothing else needs no second link. */
        if tracked.isUp, !tracked.speaksRESP3 { return passTracked(event) }
        switch shared.phase {
        case .ready:
            sendShared(event.ticket, event.bytes, isPureRead: event.isPureRead)
        case .idle(let notBeforeNs):
            guard tracked.isUp, nowNs >= notBeforeNs, openShared() else { return refuse(event.ticket) }
            postpone(event)
        case .opening:
            postpone(event)
        }
    }

    private mutating func sendShared(_ slot: SlotID, _ bytes: Bytes, isPureRead: Bool) {
        orders.send(shared.link, bytes)
        let flags: OwedReply.Flags = isPureRead ? .pureRead : []
        let grown = shared.owed.append(OwedReply(ticket: slot, sentNs: nowNs, awaited: .answer, flags: flags))
        if grown != 0 { orders.charge(grown) }
    }

    /* An event's bytes live until the next turn only. */
    private mutating func postpone(_ event: Event) {
        guard shared.pendingBytes.count &+ event.bytes.count <= FlowLimits.pendingBytes else {
            return refuse(event.ticket)
        }
        shared.pending.append(
            SharedLink.Pending(slot: event.ticket, length: event.bytes.count, isPureRead: event.isPureRead))
        shared.pendingBytes.append(contentsOf: event.bytes)
        orders.charge(event.bytes.count)
    }

    private mutating func openShared() -> Bool {
        shared.link = openLink()
        guard shared.link != 0 else { return false }
        shared.machine = LinkMachine(.plain(protocolVersion: 2), policy.credentials)
        shared.phase = .opening(deadlineNs: nowNs &+ policy.connectTimeoutNs &+ policy.handshakeTimeoutNs)
        return true
    }

    mutating func heardShared(_ bytes: Bytes) {
        guard case .ready = shared.phase else { return greetShared(bytes) }
        heardFromUpstream()
        shared.heardNs = nowNs
        guard let entry = shared.owed.first?.pointee else {
            return closeShared("the upstream answered more than it was asked")
        }
        shared.owed.removeFirst()
        orders.upstreamTook(ns: nowNs &- entry.sentNs)
        orders.answer(entry.ticket, bytes, fromRESP3: shared.machine.protocolVersion == 3, fence: fence())
    }

    private mutating func greetShared(_ bytes: Bytes) {
        switch shared.machine.receive(bytes) {
        case .more:
            break
        case .send(let bytes):
            orders.send(shared.link, bytes)
        case .failed(let failure):
            noteAnswer(failure)
            closeShared(failure.reason)
        case .ready:
            if followIfMoved(shared.machine) { return closeShared(Self.movedAway) }
            shared.phase = .ready
            let (pending, bytes) = takePending()
            bytes.withUnsafeBufferPointer { bytes in
                var start = 0
                for command in pending {
                    let end = start + command.length
                    sendShared(command.slot, Bytes(rebasing: bytes[start..<end]), isPureRead: command.isPureRead)
                    start = end
                }
            }
        }
    }

    private mutating func takePending() -> ([SharedLink.Pending], [UInt8]) {
        let taken = (shared.pending, shared.pendingBytes)
        shared.pending = []
        shared.pendingBytes = []
        orders.release(taken.1.count)
        return taken
    }

    mutating func closeShared(_ reason: String) {
        orders.closeLink(shared.link)
        loseShared(reason)
    }

    mutating func loseShared(_ reason: String) {
        var notBeforeNs = nowNs
        if case .opening = shared.phase { notBeforeNs &+= 100_000_000 }
        shared.link = 0
        shared.phase = .idle(notBeforeNs: notBeforeNs)
        if tracked.isUp { reach.say(reason) } /* else what ails the tracked link is to be told */
        while let entry = shared.owed.takeFirst() { lose(entry) }
        for command in takePending().0 { refuse(command.slot) }
        lostOther()
    }

    mutating func expireShared() {
        guard sightNs >= shared.deadlineNs(linkTimeoutNs: policy.linkTimeoutNs) else { return }
        if case .opening = shared.phase { return closeShared("its RESP2 connection was not ready in time") }
        closeShared("its RESP2 connection gave no answer for \(policy.linkTimeoutNs / 1_000_000) ms")
    }
}
