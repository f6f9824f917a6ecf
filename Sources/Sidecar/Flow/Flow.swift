import Glibc

/// Flow — decides what C cannot: looks at the events of a turn and gives orders, in the events' order.
///
///     Flow            which event, which link; deadlines                       (this file)
///     ReadThrough     misses and MGETs out, their replies back into the store
///     Passthrough     commands on the tracked link and on the shared RESP2 link
///     TrackedLink     its life: resolve, connect, handshake, heartbeat, loss
///     ControlKey      the fleet's switch
///     Prefetch        keys by pattern, before anybody asks
///     WriteBehind     writes that are acknowledged first and sent then
///     Journaling      and noted in a file, so that they survive the process
///     Pinning         links of single clients
///     Information     INFO with our own section
///     TurnedAway      clients that there was no room for
///
/// A state machine: no I/O, no clock, no random source of its own; what it wants from others (a resolver, a log) it
/// leaves in `wantsAddresses` and `notices` for the loop to fetch. Loop thread only. The handlers of misses, replies
/// and passed commands allocate nothing and count no references.
struct Flow<Engine: Orders>: ~Copyable {
    let orders: Engine
    let policy: FlowPolicy

    var nowNs: UInt64 = 0
    /// What had come by then has been seen: the time of the turn before. Only what was due by then is overdue, or a loop
    /// that was not given the processor for a while would blame the upstream for it.
    var sightNs: UInt64 = 0
    /// The flow wants to be called by then, events or not.
    private(set) var deadlineNs: UInt64 = 0

    var tracked: TrackedLink
    var shared = SharedLink()
    var probe = ProbeLink()
    var pins: PinnedSessions
    /// Those that came while the upstream was being connected.
    var waitingPins: [PinRequest] = []
    var reach: Reach
    var breaker = Breaker()
    var writes: WriteBehind
    var journaling: Journaling
    var prefetch: Prefetch
    var trackedStatus: UpstreamStatus

    /// By row of the command table.
    var roles: [PinnedRole] = []
    var offsets: InformationOffsets

    /// The upstream's name is to be resolved (again); `resolved` is called with what came of it.
    var wantsAddresses = false
    /// For the log, in order.
    var notices: [FlowNotice] = []

    private var held = Hold.nothing
    /// When more became owed or unsent than is good for the budget; 0: it is not.
    private var crowdedSinceNs: UInt64 = 0
    /// Nothing is served from the cache: by hand, or by the fleet's control key.
    var isBypassed = false
    var isBypassedByHand = false
    var isBypassedByFleet = false
    var control = ControlKeyState()
    /// What commands for a shared link are answered with now; empty: they are sent.
    private var refusal: [UInt8] = []
    private var drainUntilNs: UInt64?
    private var measureAtNs: UInt64 = 0
    private var measurements = 0
    var turnedAway = TurnedAway()
    /// After a drain: no client is connected any more, or drain_timeout has passed.
    private(set) var isFinished = false

    init(orders: Engine, policy: FlowPolicy, nowNs: UInt64) {
        self.orders = orders
        self.policy = policy
        self.nowNs = nowNs
        tracked = TrackedLink(policy, nowNs: nowNs)
        pins = PinnedSessions(max: policy.clientsMax)
        reach = Reach(policy.upstream, readTimeoutNs: policy.readTimeoutNs)
        trackedStatus = UpstreamStatus(address: policy.upstream)
        offsets = InformationOffsets(orders)
        prefetch = Prefetch(policy.prefetch, seed: policy.seed ^ 0x5072_6566)
        journaling = Journaling(policy.journalFsync)
        writes = WriteBehind(retryNs: policy.writeRetryNs, seed: policy.seed ^ 0x5772_6974)
        var row: UInt16 = 0
        while let name = orders.commandName(row), row < .max {
            roles.append(PinnedRole(commandNamed: name))
            row += 1
        }
        orders.charge(tracked.owed.bytes + shared.owed.bytes + pins.bytes + roles.capacity)
        /* A fetch brings what the upstream had when it began, at the earliest; nobody is to get what is older than a copy
           may be: the fast path knows its ttl. */
        let joinableNs = min(policy.readTimeoutNs, Heartbeat.trustedNs)
        orders.setJoinable(ms: joinableNs / 1_000_000)
        orders.setRules(policy.rules)
        orders.setAudit(every: policy.auditEvery)
        /* An application that starts together with its sidecar waits until this attempt has ended either way. */
        beginAttempt(waitNs: policy.connectTimeoutNs &* 2 &+ policy.handshakeTimeoutNs)
        settle()
    }

    /// A first connection, or one after a loss, is being made: clients wait for as long as a read would wait anyway.
    var isConnecting: Bool { reach.waitUntilNs != 0 && !tracked.isUp }

    // MARK: a turn

    mutating func handle(_ batch: Batch) {
        sightNs = nowNs
        nowNs = batch.nowNs
        var index = 0
        while index < batch.count {
            let event = batch[index]
            switch event.kind {
            case .reply:
                heard(event)
            case .miss, .mgetKey:
                var end = index &+ 1
                while end < batch.count, batch[end].kind == .miss || batch[end].kind == .mgetKey { end &+= 1 }
                fetch(batch, from: index, to: end)
                index = end
                continue
            case .mget:
                fetchMany(event)
            case .command:
                pass(event)
            case .push:
                heardPush(event)
            case .ask:
                ask(event)
            case .pin:
                wantPin(event)
            case .clientGone:
                clientGone(event)
            case .clientEnd:
                clientEnded(event)
            case .linkUp:
                linkUp(event.link)
            case .linkDown:
                linkDown(event)
            case .wake:
                break
            }
            index &+= 1
        }
        settle()
    }

    @inline(__always)
    private mutating func heard(_ event: Event) {
        if event.link == tracked.link {
            if tracked.isUp {
                heardFromUpstream()
                heardTracked(event.bytes)
            } else {
                greetTracked(event.bytes)
            }
        } else {
            heardElsewhere(event)
        }
    }

    private mutating func heardElsewhere(_ event: Event) {
        if let session = pins[event.link] {
            heardPinned(session, event.bytes)
        } else if event.link == shared.link {
            heardShared(event.bytes)
        } else if event.link == probe.link {
            heardProbe(event.bytes)
        }
    }

    private mutating func heardPush(_ event: Event) {
        if event.link == tracked.link, tracked.isUp {
            heardFromUpstream()
            heardTrackedPush(event.bytes)
        } else if let session = pins[event.link] {
            heardPinned(session, event.bytes)
        }
    }

    private mutating func linkUp(_ link: LinkID) {
        if link == tracked.link {
            connectedTracked()
        } else if link == shared.link {
            orders.send(link, shared.machine.begin())
        } else if link == probe.link {
            orders.send(link, probe.machine.begin())
        } else if let session = pins[link] {
            orders.send(link, session.pointee.machine.begin())
        }
    }

    private mutating func linkDown(_ event: Event) {
        let link = event.link
        let error = event.error
        let reason = Self.reason(event)
        if event.isOfTLS, link != tracked.link { noteAnswer(.init(reason: "handshake: \(reason)", kind: .tls)) }
        if link == tracked.link {
            downTracked(reason, error, isOfTLS: event.isOfTLS)
        } else if link == shared.link {
            loseShared(reason)
        } else if link == probe.link {
            probe.link = 0
            if event.isOfTLS { probeAnswered() } else { probeFailed(Evidence(ofConnectError: error)) }
        } else if pins[link] != nil {
            losePin(link, reason)
        }
    }

    /// Bytes from a link whose handshake is done: the node lives (rule 6).
    @inline(__always)
    mutating func heardFromUpstream() {
        reach.lastHeardNs = nowNs
        if reach.isUnreachable {
            reach.isUnreachable = false
            publishTrust()
        }
    }

    // MARK: deadlines

    /// Whatever time has brought, and when to look again. Ends every turn and every call from outside of one.
    mutating func settle() {
        if sightNs >= deadlineNs { expire() }
        sendWrites()
        prefetchOn()
        tellDeadLetters()
        sendFence()
        if let until = drainUntilNs { endDrain(until) }
        updateHold()
        updateRefusal()
        deadlineNs = nextDeadline()
    }

    private mutating func endDrain(_ untilNs: UInt64) {
        let unwritten = unwritten
        guard !isFinished, nowNs >= untilNs || (orders.clientCount == 0 && unwritten == 0) else { return }
        isFinished = true
        if policy.writesBehind {
            if let letters = writes.takeUntold(nowNs) { notices.append(letters) }
            notices.append(.drained(unwritten: unwritten, isJournaled: journaling.hasFiles, givenUp: writes.givenUp))
        }
    }

    private mutating func expire() {
        expireFlights()
        expireWait()
        expireTracked()
        expireProbe()
        expireShared()
        expirePins()
        if sightNs >= measureAtNs {
            /* Often at the start, whose code is let go as soon as the control plane has come up: clients may come at once.
               Then now and then as the heap changes. */
            measurements += 1
            measureAtNs = nowNs &+ (measurements < 6 ? min(1_000_000_000, 50_000_000 << measurements) : 10_000_000_000)
            orders.measureBase()
            noteTurnedAway()
        }
    }

    private mutating func nextDeadline() -> UInt64 {
        /* A second is the most, so that the loop's sign of life stays fresh. */
        var next = min(nowNs &+ 1_000_000_000, measureAtNs)
        if let flight = tracked.owed.firstTimed() { next = min(next, overdueNs(flight)) }
        next = min(next, tracked.deadlineNs, shared.deadlineNs(linkTimeoutNs: policy.linkTimeoutNs))
        if let probing = probeDeadline { next = min(next, probing) }
        if reach.waitUntilNs != 0 { next = min(next, reach.waitUntilNs) }
        if let pin = pins.nextDue { next = min(next, pin.deadlineNs) }
        if isCrowded { next = min(next, nowNs &+ 5_000_000) }
        next = min(next, writes.tellAtNs, max(journaling.syncAtNs, nowNs &+ 1_000_000))
        if mayPrefetch { next = min(next, max(prefetch.deadlineNs, nowNs &+ 2_000_000)) }
        if writes.resumeAtNs > nowNs { next = min(next, writes.resumeAtNs) }
        if let until = drainUntilNs, !isFinished { next = min(next, until, nowNs &+ 20_000_000) }
        return next
    }

    var isCrowded: Bool { crowdedSinceNs != 0 }

    /// For so long that a read held back for it would have been answered too late: it is not sent, and hears so.
    var isClogged: Bool { isCrowded && nowNs &- crowdedSinceNs >= policy.readTimeoutNs }

    /* Clients are held while the upstream is being connected, and while more is owed or unsent than is good for the
       budget: reads no longer than they would wait for their answer. */
    private mutating func updateHold() {
        let isConnecting = isConnecting
        if !isConnecting, !waitingPins.isEmpty { settleWaitingPins() }
        if tracked.isUp {
            let unsent = max(orders.backlog(tracked.link), shared.link == 0 ? 0 : orders.backlog(shared.link))
            let owed = max(tracked.owed.count, shared.owed.count)
            let isTooMuch =
                isCrowded
                ? owed > FlowLimits.owedLow || unsent > FlowLimits.unsentLow
                : owed > FlowLimits.owedHigh || unsent > FlowLimits.unsentHigh
            crowdedSinceNs = !isTooMuch ? 0 : isCrowded ? crowdedSinceNs : nowNs
        } else {
            crowdedSinceNs = 0
        }
        let hold: Hold = isConnecting ? .all : !isCrowded ? .nothing : isClogged ? .commands : .all
        if hold != held {
            held = hold
            orders.hold(hold)
        }
    }

    /* What cannot be sent is refused when it is parsed, before it has dropped anything. */
    private mutating func updateRefusal() {
        let mustRefuse = !tracked.isUp && !isConnecting
        if !mustRefuse, refusal.isEmpty { return }
        let error = mustRefuse ? reach.error : []
        guard error != refusal else { return }
        refusal = error
        error.withUnsafeBufferPointer { orders.refuse($0) }
    }

    // MARK: from outside of a turn, on the loop thread

    /// Goes on serving, new connections too, until no client is connected or drain_timeout has passed. Nothing more is
    /// acknowledged that could be left at the end.
    mutating func beginDrain(_ nowNs: UInt64) {
        guard drainUntilNs == nil else { return }
        self.nowNs = nowNs
        if policy.writesBehind { orders.closeWriteBehind() }
        drainUntilNs = nowNs &+ policy.drainTimeoutNs
        settle()
    }

    /// Everything, by hand.
    mutating func flush(_ nowNs: UInt64) {
        self.nowNs = nowNs
        orders.dropAll()
        prefetch.begin(nowNs)
        settle()
    }

    /// By hand.
    mutating func beginPrefetch(_ pattern: [UInt8], _ nowNs: UInt64) -> PrefetchAnswer {
        self.nowNs = nowNs
        guard !isBypassed else { return .bypassed }
        guard tracked.isUp, !tracked.heartbeat.isLate, !breaker.isOpen else { return .unreachable }
        guard prefetch.begin(nowNs, pattern: pattern) else { return .underWay }
        settle()
        return .begun
    }

    var status: UpstreamStatus {
        var status = trackedStatus
        status.state =
            tracked.isUp
            ? tracked.heartbeat.isLate ? (reach.isUnreachable ? .unreachable : .suspended) : .up
            : reach.isUnreachable ? .unreachable : .connecting
        status.links = UInt32(pins.count + [tracked.link, shared.link, probe.link].count { $0 != 0 })
        status.breakerIsOpen = breaker.isOpen
        status.prefetch = prefetch.status
        status.isBypassed = isBypassed
        status.breakerOpened = breaker.opened
        status.journal = journaling.status
        return status
    }

    /// Of a LINK_DOWN, in words.
    private static func reason(_ event: Event) -> String {
        if event.isOfCertificate {
            return "the upstream's certificate is not accepted: \(String(decoding: event.bytes, as: UTF8.self))"
        }
        if event.isOfTLS {
            let words = String(decoding: event.bytes, as: UTF8.self)
            return "TLS: \(words)\(words == "wrong version number" ? " (does it speak TLS?)" : "")"
        }
        return switch event.error {
        case 0: "the upstream closed the connection"
        case EPROTO: "the upstream sent what is not RESP"
        case ENOMEM: "local_memory is spent: there was no room for what the link had to carry"
        default: String(cString: strerror(event.error))
        }
    }
}

/// Bounds that hold clients back; generous, and C bounds each client before.
enum FlowLimits {
    /// Replies owed by one link: 1.5 MiB of queue.
    static let owedHigh = 65_536
    static let owedLow = 16_384
    /// Bytes that a link's socket has not taken.
    static let unsentHigh = 1 << 20
    static let unsentLow = 256 << 10
    /// Commands waiting for the shared RESP2 link to be made.
    static let pendingBytes = 1 << 20
    /// Keys registered by one EXISTS.
    static let groupKeys = 256
}
