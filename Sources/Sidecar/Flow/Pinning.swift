/// Pinning — opens a link for a client that needs one of its own, and carries out what its session decides.
///
/// The link has our credentials and the client's protocol version, no tracking and no heartbeat: it may rightly be
/// silent for hours. When it is lost the client is closed, as by a dying Redis, unless it needs it no more. When the
/// client leaves, its link goes at once, in the middle of a blocking command too; when it only ends its side, the link's
/// side is ended likewise.
///
/// When nothing is held on it any more (after EXEC, the last UNSUBSCRIBE, a blocking command's reply), the client goes on
/// by the cache and the shared links, and keeps it for the next command that needs one: a pooled connection that runs a
/// transaction now and then costs the upstream one connection, not one each time. For half a minute: then it is closed.

/// A client that wants a link of its own.
struct PinRequest {
    let client: ClientID
    /// What CLIENT ID tells it.
    let number: UInt64
    let protocolVersion: UInt8
    /// What it calls itself; empty for nothing.
    let name: [UInt8]
}

extension Flow {
    mutating func wantPin(_ event: Event) {
        let request = PinRequest(
            client: event.client, number: event.ticket, protocolVersion: event.protocolVersion == 3 ? 3 : 2,
            name: Array(event.bytes))
        /* It has one that does not fit any more: it has another protocol or name now. */
        if event.link != 0, pins[event.link] != nil {
            orders.closeLink(event.link)
            removePin(event.link)
        }
        if isConnecting {
            waitingPins.append(request)
        } else {
            openPin(request)
        }
    }

    /// The connection for which they waited has come, or will not in time.
    mutating func settleWaitingPins() {
        let waiting = waitingPins
        waitingPins = []
        for request in waiting { openPin(request) }
    }

    private mutating func openPin(_ request: PinRequest) {
        /* Where our own credentials are refused, the client's may be good: its link has nothing to do with ours. And what
           runs a script still takes SCRIPT KILL. */
        guard tracked.isUp && !reach.isUnreachable || reach.isRefused || reach.isBusy else {
            return failPin(request.client)
        }
        let link = openLink()
        guard link != 0 else { return failPin(request.client, "-ERR max number of upstream connections reached\r\n") }
        let none = Credentials(username: "", password: Secret(""))
        let session = PinnedSession(
            client: request.client, number: request.number, link: link, protocolVersion: request.protocolVersion,
            name: request.name,
            credentials: reach.isRefused ? none : policy.credentials,
            isStranger: reach.isRefused && !policy.credentials.isEmpty,
            deadlineNs: nowNs &+ policy.connectTimeoutNs &+ policy.handshakeTimeoutNs)
        let bytes = session.owed.bytes
        if pins.insert(session) {
            orders.charge(bytes)
        } else {
            orders.closeLink(link)
            failPin(request.client, "-ERR max number of upstream connections reached\r\n")
        }
    }

    private func failPin(_ client: ClientID) {
        let error = reach.error
        error.withUnsafeBufferPointer { orders.failPin(client, $0) }
    }

    private func failPin(_ client: ClientID, _ error: String) {
        Array(error.utf8).withUnsafeBufferPointer { orders.failPin(client, $0) }
    }

    mutating func passPinned(_ event: Event) {
        guard let session = pins[event.link] else { return orders.closeSlot(event.ticket) }
        let role = Int(event.command) < roles.count ? roles[Int(event.command)] : .keeping
        var grown = 0
        if role == .naming || role == .redirecting || role == .killing,
            let request = requestInUpstreamIDs(event.bytes, isKill: role == .killing)
        {
            orders.send(event.link, request)
        } else {
            orders.send(event.link, event.bytes)
        }
        switch session.pointee.send(event.ticket, role, event.bytes, nowNs: nowNs, grown: &grown) {
        case .reply: break
        case .silence: orders.answer(event.ticket, Bytes(start: nil, count: 0), fromRESP3: false, fence: 0)
        }
        if role == .reset, Request.argumentCount(event.bytes) == 1, !policy.credentials.isEmpty {
            /* RESET has also taken away the authentication, which the client knows nothing of. */
            orders.send(event.link, policy.credentials.auth)
            grown &+= session.pointee.oweNothing(nowNs: nowNs)
        }
        if grown != 0 { orders.charge(grown) }
        settleSilence(session)
    }

    private func settleSilence(_ session: UnsafeMutablePointer<PinnedSession>) {
        var grown = 0
        guard let words = session.pointee.settling(nowNs: nowNs, grown: &grown) else { return }
        orders.send(session.pointee.link, words)
        orders.markSilent(session.pointee.client)
        if grown != 0 { orders.charge(grown) }
    }

    mutating func heardPinned(_ session: UnsafeMutablePointer<PinnedSession>, _ bytes: Bytes) {
        guard case .ready = session.pointee.phase else { return greetPinned(session, bytes) }
        heardFromUpstream()
        switch session.pointee.receive(bytes) {
        case .answer(let slot):
            orders.answer(slot, bytes, fromRESP3: false, fence: fence())
        case .answerMore(let slot):
            orders.answerMore(slot, bytes, isFenced: fence() != 0)
        case .identify(let slot):
            let ours = replyInOurIDs(bytes) ?? Array(bytes)
            ours.withUnsafeBufferPointer { orders.answer(slot, $0, fromRESP3: false, fence: fence()) }
        case .inform(let asked):
            heardInformation(asked, bytes, fence: fence())
        case .tell:
            orders.tell(session.pointee.client, bytes, fence: fence())
        case .tellUnfenced:
            orders.tell(session.pointee.client, bytes, fence: 0)
        case .discard:
            break
        case .settle:
            orders.settleSilent(session.pointee.client)
            settleSilence(session)
        case .surplus:
            orders.closeLink(session.pointee.link)
            session.pointee.isGivenBack = false
            return losePin(session.pointee.link, "the upstream answered more than it was asked")
        }
        if session.pointee.holdsNothing, orders.unpin(session.pointee.client) {
            pins.rests(session.pointee.link, untilNs: nowNs &+ policy.pinRestNs)
        }
    }

    private mutating func greetPinned(_ session: UnsafeMutablePointer<PinnedSession>, _ bytes: Bytes) {
        let link = session.pointee.link
        switch session.pointee.machine.receive(bytes) {
        case .more:
            break
        case .send(let bytes):
            orders.send(link, bytes)
        case .failed(let failure):
            orders.closeLink(link)
            noteAnswer(failure)
            losePin(link, failure)
        case .ready:
            if followIfMoved(session.pointee.machine) {
                orders.closeLink(link)
                return losePin(link, Self.movedAway)
            }
            session.pointee.phase = .ready
            pins.opened(link)
            orders.pin(session.pointee.client, link)
        }
    }

    mutating func losePin(_ link: LinkID, _ reason: String) { losePin(link, LinkMachine.Failure(reason: reason)) }

    private mutating func losePin(_ link: LinkID, _ failure: LinkMachine.Failure) {
        guard let session = pins[link] else { return }
        let client = session.pointee.client
        if session.pointee.isGivenBack, !session.pointee.isDoomed {
            orders.losePin(client)
        } else if case .ready = session.pointee.phase {
            orders.closeClient(client)
        } else {
            var reach = reach
            reach.say(failure)
            reach.error.withUnsafeBufferPointer { orders.failPin(client, $0) }
        }
        removePin(link)
        lostOther()
    }

    mutating func clientGone(_ event: Event) {
        waitingPins.removeAll { $0.client == event.client }
        guard let link = pins[event.link] != nil ? event.link : pins.link(of: event.client) else { return }
        /* It has ended its side: the link ends by itself when what was asked has been sent. */
        if pins.isEnding(link) { return }
        orders.closeLink(link)
        removePin(link)
    }

    private mutating func removePin(_ link: LinkID) {
        guard let session = pins[link] else { return }
        orders.release(session.pointee.owed.bytes)
        pins.remove(link)
    }

    /// As by Redis, what the client has asked is answered, and what blocks ends with it: by the upstream itself.
    mutating func clientEnded(_ event: Event) {
        guard pins[event.link] != nil else { return }
        orders.finishLink(event.link)
        pins.ends(event.link, deadlineNs: nowNs &+ policy.linkTimeoutNs)
    }

    mutating func expirePins() {
        while let (link, deadlineNs) = pins.nextDue, sightNs >= deadlineNs {
            orders.closeLink(link)
            losePin(link, "a connection for this client was not ready in time")
        }
        for link in pins.rested(nowNs: sightNs) {
            orders.closeLink(link)
            losePin(link, "this client has not needed its connection for long")
        }
    }
}
