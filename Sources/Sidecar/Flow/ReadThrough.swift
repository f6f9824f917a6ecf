/// ReadThrough — misses go upstream and come back into the store.
///
/// A miss is sent as CLIENT CACHING YES, PTTL key, GET key, in this order and nothing between them. CACHING covers the
/// next command alone, so it is PTTL that registers the key for tracking. Therefore every change between PTTL and GET,
/// or behind GET, is announced by a push; the flight is armed by PTTL's reply, so that push spoils it, whether it comes
/// before or behind GET's reply. So when GET's reply is there and no push was, the value is the one that had the PTTL,
/// it is registered, and it can be stored at once: nothing has to be held between two replies, and its TTL, counted
/// from before PTTL was sent, is never too long. (A push before PTTL's reply belongs to an earlier registration: what
/// PTTL and GET then read is newer than it.)
///
/// Several misses in a row share one CACHING: with EXISTS k1 … kn behind it, which registers all of them, and a PTTL
/// and GET for each. Their registration is EXISTS, so it is EXISTS's reply that arms them all; PTTL's reply then only
/// tells the time to live. 2n + 2 commands instead of 3n.
///
/// Under BCAST all changes are announced, of keys with the prefixes asked for: PTTL and GET, and what has no such prefix is
/// not kept.
///
/// Without tracking there is no registration: PTTL and GET, and the TTL is the only bound. A key that is not kept, by its
/// rule, needs GET alone.
extension Flow {
    /// Events `start` to `end` are misses and keys of MGETs without anything between them.
    mutating func fetch(_ batch: Batch, from start: Int, to end: Int) {
        guard tracked.isUp, !reach.isUnreachable else { return refuseFetches(batch, start, end, reach.error) }
        guard !isClogged else { return refuseFetches(batch, start, end, reach.slowError) }
        if isBroken {
            /* One that can be sent alone. */
            let isProbe = batch[start].kind == .miss && breaker.admits(nowNs)
            if isProbe { fetchAlone(batch[start]) }
            return refuseFetches(batch, isProbe ? start &+ 1 : start, end, reach.slowError)
        }
        if !tracked.tracking || end &- start == 1 || policy.tracking.isBroadcast {
            for index in start..<end { fetchAlone(batch[index]) }
        } else {
            var first = start
            while first < end {
                let next = min(first &+ FlowLimits.groupKeys, end)
                fetchGroup(batch, from: first, to: next)
                first = next
            }
        }
    }

    /// Only single reads are sent. But when copies are trusted no longer, and the connection is under way that shows whether
    /// they may be served all the same, who asks for one waits for that.
    private var isBroken: Bool {
        breaker.isOpen && !(probe.link != 0 && nowNs >= tracked.heartbeat.trustedUntilNs)
    }

    @inline(__always)
    private mutating func fetchAlone(_ event: Event) {
        let isBroadcast = tracked.tracking && policy.tracking.isBroadcast
        let isAnnounced = isBroadcast && policy.tracking.announces(event.bytes)
        if event.kind == .miss, event.isUncached || (isBroadcast && !isAnnounced) {
            owe(OwedReply(ticket: event.ticket, sentNs: nowNs, awaited: .value, flags: .wantsValue))
            orders.send(tracked.link, Wire.get)
            return orders.sendBulk(tracked.link, event.bytes)
        }
        if isBroadcast { return fetchMember(event, isAnnounced ? .tracked : []) }
        guard tracked.tracking else { return fetchMember(event, policy.keepsUntracked ? .tracked : []) }
        orders.send(tracked.link, Wire.caching)
        let flags: OwedReply.Flags = event.kind == .miss ? .wantsValue : []
        owe(OwedReply(ticket: event.ticket, sentNs: nowNs, awaited: .caching, flags: flags))
        sendMember(event)
    }

    private func refuseFetches(_ batch: Batch, _ start: Int, _ end: Int, _ error: [UInt8]) {
        error.withUnsafeBufferPointer { error in
            for index in start..<end { orders.fail(batch[index].ticket, error) }
        }
    }

    private mutating func fetchGroup(_ batch: Batch, from start: Int, to end: Int) {
        let link = tracked.link
        let count = end &- start
        orders.send(link, Wire.caching)
        sendArrayHeader(link, count &+ 1)
        orders.send(link, Wire.exists)
        for index in start..<end { orders.sendBulk(link, batch[index].bytes) }
        owe(
            OwedReply(
                ticket: 0, sentNs: nowNs, awaited: .caching, flags: .group, count: UInt32(truncatingIfNeeded: count)))
        for index in start..<end { fetchMember(batch[index], []) }
    }

    @inline(__always)
    private mutating func fetchMember(_ event: Event, _ flags: OwedReply.Flags) {
        let flags = event.kind == .miss ? flags.union(.wantsValue) : flags
        owe(OwedReply(ticket: event.ticket, sentNs: nowNs, awaited: .expiry, flags: flags))
        sendMember(event)
    }

    @inline(__always)
    private func sendMember(_ event: Event) {
        orders.send(tracked.link, Wire.pttl)
        orders.sendBulk(tracked.link, event.bytes)
        if event.kind == .miss {
            orders.send(tracked.link, Wire.get)
            orders.sendBulk(tracked.link, event.bytes)
        }
    }

    /// An MGET, its keys' PTTLs before it.
    mutating func fetchMany(_ event: Event) {
        /* Its keys, in front of it, have been refused with all that waits for it. */
        guard tracked.isUp, !reach.isUnreachable, !isClogged, !isBroken else { return }
        orders.send(tracked.link, event.bytes)
        owe(OwedReply(ticket: event.ticket, sentNs: nowNs, awaited: .value, flags: .wantsValue))
    }

    @inline(__always)
    mutating func owe(_ entry: OwedReply) {
        let grown = tracked.owed.append(entry)
        if grown != 0 { orders.charge(grown) }
    }

    private func sendArrayHeader(_ link: LinkID, _ count: Int) {
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 24) { bytes in
            var at = 24
            var rest = count
            at -= 2
            bytes[at] = UInt8(ascii: "\r")
            bytes[at + 1] = UInt8(ascii: "\n")
            repeat {
                at -= 1
                bytes[at] = UInt8(ascii: "0") &+ UInt8(truncatingIfNeeded: rest % 10)
                rest /= 10
            } while rest > 0 && at > 1
            at -= 1
            bytes[at] = UInt8(ascii: "*")
            orders.send(link, Bytes(rebasing: bytes[at..<24]))
        }
    }

    // MARK: what comes back on the tracked link

    @inline(__always)
    mutating func heardTracked(_ bytes: Bytes) {
        guard let entry = tracked.owed.first else {
            closeTracked("the upstream answered more than it was asked")
            return
        }
        switch entry.pointee.awaited {
        case .value:
            orders.fill(entry.pointee.ticket, bytes)
            orders.upstreamTook(ns: nowNs &- entry.pointee.sentNs)
            if tracked.owed.firstIsGivenUp {
                breaker.late(sentNs: entry.pointee.sentNs, nowNs)
            } else {
                breaker.succeeded()
            }
            tracked.owed.removeFirst()
        case .expiry:
            heardExpiry(entry, Reply(bytes))
        case .caching:
            heardCaching(entry, Reply(bytes))
        case .registration:
            heardRegistration(entry, Reply(bytes))
        case .answer:
            if bytes[0] == UInt8(ascii: "-"), Reply(bytes).isReadOnly { doubtServer() }
            orders.answer(entry.pointee.ticket, bytes, fromRESP3: tracked.speaksRESP3, fence: fence(of: entry))
            orders.upstreamTook(ns: nowNs &- entry.pointee.sentNs)
            tracked.owed.removeFirst()
        case .information:
            let asked = entry.pointee
            tracked.owed.removeFirst()
            heardInformation(asked, bytes)
        case .pong:
            let sentNs = entry.pointee.sentNs
            tracked.owed.removeFirst()
            heardPong(sentNs: sentNs)
        case .commands:
            tracked.owed.removeFirst()
            notices.append(.learnt(commands: orders.learnCommands(bytes)))
        case .written:
            heardWritten(entry, bytes)
        case .scan:
            tracked.owed.removeFirst()
            heardScan(bytes)
        case .control:
            let isAnnounced = entry.pointee.flags.contains(.announced)
            tracked.owed.removeFirst()
            heardControl(bytes, isAnnounced: isAnnounced)
        case .nothing, .settling, .confirmations:
            tracked.owed.removeFirst()
        }
    }

    /* Broadcasts come when the upstream has carried out all that it had received, a PING right behind the command too. */
    @inline(__always)
    private mutating func fence(of entry: UnsafeMutablePointer<OwedReply>) -> FenceID {
        guard entry.pointee.flags.contains(.fenced) else { return 0 }
        return policy.tracking.isBroadcast ? fence() : tracked.heartbeat.fenceBehind
    }

    @inline(__always)
    private mutating func heardExpiry(_ entry: UnsafeMutablePointer<OwedReply>, _ reply: Reply) {
        /* Without a time to live its value answers, but is not stored, though its group's registration have armed it. */
        let ttl = reply.integer
        let isKept = ttl != nil && entry.pointee.flags.contains(.tracked)
        let keep: Keep = isKept ? tracked.tracking ? .answer : .value : .nothing
        orders.arm(entry.pointee.ticket, ttlMs: ttl ?? -1, sentNs: entry.pointee.sentNs, keep: keep)
        if entry.pointee.flags.contains(.wantsValue) {
            entry.pointee.awaited = .value
        } else {
            tracked.owed.removeFirst()
        }
    }

    @inline(__always)
    private mutating func heardCaching(_ entry: UnsafeMutablePointer<OwedReply>, _ reply: Reply) {
        if reply.isOK { entry.pointee.flags.insert(.tracked) }
        entry.pointee.awaited = entry.pointee.flags.contains(.group) ? .registration : .expiry
    }

    private mutating func heardRegistration(_ entry: UnsafeMutablePointer<OwedReply>, _ reply: Reply) {
        if entry.pointee.flags.contains(.tracked), reply.integer != nil {
            var distance = 1
            while distance <= Int(entry.pointee.count), let member = tracked.owed.entry(behindFirst: distance) {
                member.pointee.flags.insert(.tracked)
                /* From here on a push spoils it; its time to live is told by its PTTL. */
                orders.arm(member.pointee.ticket, ttlMs: -1, sentNs: member.pointee.sentNs, keep: .answer)
                distance &+= 1
            }
        }
        tracked.owed.removeFirst()
    }

    /// An invalidation, or a push that we did not ask for, which is nothing to us.
    mutating func heardTrackedPush(_ bytes: Bytes) {
        guard var push = PubSubReply(bytes), push.kind.equals("invalidate") else { return }
        guard let (type, count) = push.reader.header(), type == UInt8(ascii: "*"), count >= 0 else {
            /* Null: everything. What cannot be read is taken for that too. */
            orders.dropAll()
            prefetch.begin(nowNs)
            askControl(isAnnounced: true)
            return
        }
        var left = count
        while left > 0 {
            guard let key = push.reader.text() else {
                orders.dropAll()
                return
            }
            orders.drop(key)
            if isControl(key) { askControl(isAnnounced: true) }
            left &-= 1
        }
    }

    // MARK: those who wait

    /// A large reply may take longer than read_timeout to arrive: while it does the upstream is not silent, for those behind
    /// it either.
    func overdueNs(_ waiting: OwedReply) -> UInt64 {
        max(waiting.sentNs, orders.arrivingNs(tracked.link)) &+ policy.readTimeoutNs
    }

    mutating func expireFlights() {
        let error = reach.timeoutError
        while let overdue = tracked.owed.firstTimed(), sightNs >= overdueNs(overdue) {
            tracked.owed.giveUpFirstTimed()
            trackedStatus.timeouts &+= 1
            breaker.failed(nowNs)
            error.withUnsafeBufferPointer { orders.timeOut(overdue.ticket, $0) }
        }
    }

    /// The upstream has turned out to be unreachable: nobody need wait until read_timeout for a copy, or for an error.
    mutating func giveUpFlights() {
        let error = reach.error
        while let waiting = tracked.owed.firstTimed() {
            tracked.owed.giveUpFirstTimed()
            error.withUnsafeBufferPointer { orders.timeOut(waiting.ticket, $0) }
        }
    }

    /// The link that owed it is lost: there will be no answer. Pure reads are failed, INFO gets our own section, and a
    /// write, whose fate is unknown, closes its client as a dying Redis would.
    mutating func lose(_ entry: OwedReply) {
        if entry.awaited == .scan { prefetch.failed(nowNs, "the link was lost") }
        let error = reach.error
        error.withUnsafeBufferPointer { error in
            switch entry.awaited {
            case .caching where entry.flags.contains(.group), .registration:
                break /* Its members follow. */
            case .caching, .expiry, .value:
                orders.fail(entry.ticket, error)
            case .answer where entry.flags.contains(.pureRead):
                orders.answerError(entry.ticket, error)
            case .answer:
                orders.closeSlot(entry.ticket)
            case .information:
                answerOwnInformation(entry)
            case .written:
                orders.unsendWritesBehind()
            case .scan, .control:
                break
            case .pong, .commands, .nothing, .settling, .confirmations:
                break
            }
        }
    }
}

/// The constant parts of what is sent.
enum Wire {
    static let caching: StaticString = "*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$3\r\nYES\r\n"
    static let replyOnOff: StaticString =
        "*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$2\r\nON\r\n*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n"
    static let pttl: StaticString = "*2\r\n$4\r\nPTTL\r\n"
    static let get: StaticString = "*2\r\n$3\r\nGET\r\n"
    /* Behind its array header. */
    static let exists: StaticString = "$6\r\nEXISTS\r\n"
    static let ping: StaticString = "*1\r\n$4\r\nPING\r\n"
    static let commands: StaticString = "*1\r\n$7\r\nCOMMAND\r\n"
}
