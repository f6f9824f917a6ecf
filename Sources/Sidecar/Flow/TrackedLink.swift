import Glibc

/// TrackedLink — the life of the one link on which everything plain travels and pushes are applied.
///
///     resting ──► resolving ──► connecting ──► greeting ──► up
///        ▲            │             │ next address │          │
///        └────────────┴─────────────┴──────────────┘          │ lost: the first attempt begins at once
///        backoff                    resolving ◄───────────────┘
struct TrackedLink: ~Copyable {
    enum Phase {
        case resting(untilNs: UInt64)
        /// The deadline is not the resolver's, which has its own: past it clients need not wait.
        case resolving(deadlineNs: UInt64)
        case connecting(deadlineNs: UInt64)
        case greeting(deadlineNs: UInt64)
        case up
    }

    var phase = Phase.resting(untilNs: 0)
    /// 0: none.
    var link: LinkID = 0
    var isUp = false
    /// The upstream announces changes.
    var tracking = false
    var speaksRESP3 = false
    var machine: LinkMachine
    var owed = Owed(capacity: 1_024)
    var heartbeat: Heartbeat
    var backoff: Backoff
    /// The upstream's addresses as last resolved, and which of them is in use.
    var addresses: [[UInt8]] = []
    var address = 0
    /// The resolver has been asked, and has not answered.
    var isResolving = false
    /// It has been asked because the server is a replica now: whether the name leads elsewhere.
    var isDoubted = false
    /// What it has answered since they were last tried.
    var freshAddresses: [[UInt8]]?
    /// What the addresses tried so far show.
    var evidence = Evidence.busy
    var attemptNs: UInt64 = 0
    /// When it was last lost.
    var lostNs: UInt64 = 0
    /// No connection has been tried since then, nor before.
    var isUntried = true
    var upNs: UInt64 = 0
    /// The run_id of whom the command table has been completed.
    var learntFrom: Int?
    var serverVersion = ""
    /// Of the server that it leads, or led, to.
    var runID: Int?

    init(_ policy: FlowPolicy, nowNs: UInt64) {
        machine = LinkMachine(.tracked(policy.tracking), policy.credentials)
        heartbeat = Heartbeat(linkTimeoutNs: policy.linkTimeoutNs, nowNs: nowNs)
        backoff = Backoff(seed: policy.seed)
    }

    var deadlineNs: UInt64 {
        switch phase {
        case .resting(let deadlineNs), .resolving(let deadlineNs), .connecting(let deadlineNs),
            .greeting(let deadlineNs):
            deadlineNs
        case .up:
            heartbeat.deadlineNs
        }
    }
}

/// A connection that is made only to see whether the upstream answers at all, while its heartbeat is late.
struct ProbeLink {
    var link: LinkID = 0
    var machine = LinkMachine(.probe, Credentials(username: "", password: Secret("")))
    var startedNs: UInt64 = 0
    var deadlineNs: UInt64 = 0
    /// When the next one may begin.
    var notBeforeNs: UInt64 = 0
}

/// What a failed attempt shows of the upstream; of several addresses the weakest counts.
enum Evidence: Comparable {
    /// It was never asked: the system had no socket for us, or no address.
    case nothing
    case silence
    /// Without a word: refused, reset, no way there.
    case turnedAway
    /// It said that it serves nobody now.
    case busy

    init(ofConnectError error: Int32) {
        self =
            [EADDRNOTAVAIL, ENOBUFS, ENOMEM].contains(error) ? .nothing : error == ETIMEDOUT ? .silence : .turnedAway
    }
}

/// What the resolver says.
enum Resolution: Sendable {
    /// Socket addresses, in the order of preference; not empty.
    case addresses([[UInt8]])
    case failed(String)
}

extension Flow {
    // MARK: making it

    /// `waitNs`: how long clients wait for what becomes of it, at most.
    mutating func beginAttempt(waitNs: UInt64) {
        tracked.attemptNs = nowNs
        reach.isTurnedAway = false
        if waitNs > 0 { reach.waitUntilNs = nowNs &+ waitNs }
        if let address = policy.numericAddress {
            tracked.addresses = [address]
            connectToAddresses()
        } else {
            /* Resolved again each time: the upstream may have moved. */
            tracked.phase = .resolving(deadlineNs: nowNs &+ policy.connectTimeoutNs)
            wantsAddresses = !tracked.isResolving
            tracked.isResolving = true
        }
    }

    mutating func resolved(_ resolution: Resolution, nowNs: UInt64) {
        self.nowNs = nowNs
        tracked.isResolving = false
        if case .addresses(let addresses) = resolution { tracked.freshAddresses = addresses }
        if tracked.isDoubted { followName() }
        if case .resolving = tracked.phase {
            if case .failed(let reason) = resolution, tracked.addresses.isEmpty {
                attemptFailed(LinkMachine.Failure(reason: "resolve: \(reason)", kind: .resolve), .nothing)
            } else {
                connectToAddresses()
            }
        }
        settle()
    }

    /* What was good last time may still be, when only the resolver has failed, or is slow. */
    private mutating func connectToAddresses() {
        if let addresses = tracked.freshAddresses { tracked.addresses = addresses }
        tracked.freshAddresses = nil
        tracked.isUntried = false
        tracked.address = -1
        tracked.evidence = .busy
        connectToNextAddress(
            orFail: .init(reason: "connect: the system has no socket for it, or local_memory no room", kind: .connect),
            .busy)
    }

    private mutating func connectToNextAddress(orFail failure: LinkMachine.Failure, _ evidence: Evidence) {
        tracked.link = 0
        tracked.evidence = min(tracked.evidence, evidence)
        tracked.address += 1
        while tracked.address < tracked.addresses.count {
            tracked.link = openLink()
            if tracked.link != 0 {
                tracked.phase = .connecting(deadlineNs: nowNs &+ policy.connectTimeoutNs)
                return
            }
            tracked.evidence = .nothing
            tracked.address += 1
        }
        attemptFailed(failure, tracked.evidence)
    }

    /// A new link to the address in use; 0 when there is none, no room, or the system knows no way there.
    func openLink() -> LinkID {
        guard tracked.addresses.indices.contains(tracked.address) else { return 0 }
        return tracked.addresses[tracked.address].withUnsafeBufferPointer { orders.openLink($0) }
    }

    mutating func connectedTracked() {
        guard case .connecting = tracked.phase else { return }
        tracked.machine = LinkMachine(.tracked(policy.tracking), policy.credentials)
        tracked.phase = .greeting(deadlineNs: nowNs &+ policy.handshakeTimeoutNs)
        /* What the kernel still holds when this process ends must not arrive behind what the next one sends. */
        if policy.writesBehind { orders.resetAtEnd(tracked.link) }
        orders.send(tracked.link, tracked.machine.begin())
    }

    mutating func greetTracked(_ bytes: Bytes) {
        switch tracked.machine.receive(bytes) {
        case .more:
            break
        case .send(let bytes):
            orders.send(tracked.link, bytes)
        case .failed(let failure):
            orders.closeLink(tracked.link)
            attemptFailed(failure, failure.isBusy ? .busy : .turnedAway)
        case .ready:
            trackedIsUp()
        }
    }

    private mutating func trackedIsUp() {
        let machine = tracked.machine
        tracked.phase = .up
        tracked.isUp = true
        tracked.upNs = nowNs
        tracked.tracking = machine.tracking
        tracked.speaksRESP3 = machine.protocolVersion == 3
        tracked.serverVersion = machine.serverVersion
        tracked.heartbeat = Heartbeat(linkTimeoutNs: policy.linkTimeoutNs, nowNs: nowNs)
        reach.isUnreachable = false
        reach.isRefused = false
        reach.isBusy = false
        reach.waitUntilNs = 0
        /* What was late was so on another link. */
        breaker.succeeded()
        reach.lastHeardNs = nowNs
        if trackedStatus.epoch > 0 { trackedStatus.reconnects &+= 1 } else { prefetch.begin(nowNs) }
        trackedStatus.epoch &+= 1
        trackedStatus.tracking = machine.tracking
        trackedStatus.trackingReason = machine.trackingReason
        /* Entries of older epochs are suspect from here on, and this precedes every fill of the new one. */
        publishTrust()
        let isAnother = tracked.runID.map { $0 != machine.runID } ?? false
        tracked.runID = machine.runID
        closeOthers(all: isAnother)
        orders.setUpstream(
            version: machine.serverVersion, mode: machine.serverMode, role: machine.serverRole,
            protocolVersion: machine.protocolVersion)
        if tracked.learntFrom != machine.runID {
            tracked.learntFrom = machine.runID
            orders.send(tracked.link, Wire.commands)
            owe(OwedReply(ticket: 0, sentNs: nowNs, awaited: .commands, flags: []))
        }
        askControl(isAnnounced: false)
        notices.append(
            .up(version: machine.serverVersion, tracking: machine.tracking, trackingReason: machine.trackingReason))
    }

    /* Others would write to, and tell of, a server whose changes the tracked link does not announce. */
    private mutating func closeOthers(all: Bool) {
        let reason = "the upstream is another server now"
        for link in pins.links {
            guard let session = pins[link], all || leadsElsewhere(session.pointee.machine) else { continue }
            orders.closeLink(link)
            losePin(link, reason)
        }
        if shared.link != 0, all || leadsElsewhere(shared.machine) { closeShared(reason) }
    }

    private func leadsElsewhere(_ machine: LinkMachine) -> Bool {
        guard let ours = tracked.runID else { return false }
        return machine.runID != 0 && ours != 0 && machine.runID != ours
    }

    /// A new link is ready. When it leads to another server than the tracked one, the address has moved, and whoever connects
    /// now writes there: true, and the tracked link is made anew.
    @discardableResult
    mutating func followIfMoved(_ machine: LinkMachine) -> Bool {
        guard tracked.isUp, leadsElsewhere(machine) else { return false }
        closeTracked(Self.movedAway)
        return true
    }

    /// The server says that it is a replica. Where an address moves with the role, another one is there by now, while our
    /// connection still leads to this one: a new connection shows it, or the name does. Once in half a second.
    mutating func doubtServer() {
        guard tracked.isUp, probe.link == 0, nowNs >= probe.notBeforeNs, !tracked.isResolving else { return }
        guard policy.numericAddress == nil else { return openProbe() }
        probe.notBeforeNs = nowNs &+ Heartbeat.lateNs
        tracked.isDoubted = true
        tracked.isResolving = true
        wantsAddresses = true
    }

    private mutating func followName() {
        tracked.isDoubted = false
        guard tracked.isUp, let fresh = tracked.freshAddresses else { return }
        guard fresh.contains(tracked.addresses[tracked.address]) else { return closeTracked(Self.movedAway) }
        if probe.link == 0 { openProbe() }
    }

    static var movedAway: String { "new connections lead to another server" }

    // MARK: losing it

    /// LINK_DOWN, with its errno, or TLS's reason.
    mutating func downTracked(_ reason: String, _ error: Int32, isOfTLS: Bool) {
        switch tracked.phase {
        case .up:
            loseTracked(reason)
        case .connecting:
            connectToNextAddress(
                orFail: .init(reason: "connect: \(reason)", kind: .connect), Evidence(ofConnectError: error))
        case .greeting:
            connectToNextAddress(
                orFail: .init(reason: "handshake: \(reason)", kind: isOfTLS ? .tls : .handshake), .turnedAway)
        case .resting, .resolving:
            break
        }
    }

    /// Another link than the tracked one, that was being made, has been answered so.
    mutating func noteAnswer(_ failure: LinkMachine.Failure) {
        trackedStatus.failures.count(failure.kind)
        guard failure.isAnswer, trackedStatus.lastError != failure.reason else { return }
        trackedStatus.lastError = failure.reason
        notices.append(failure.isRefusal ? .refused(reason: failure.reason) : .untrusted(reason: failure.reason))
    }

    private mutating func attemptFailed(_ failure: LinkMachine.Failure, _ evidence: Evidence) {
        let reason = failure.reason
        trackedStatus.failures.count(failure.kind)
        tracked.link = 0
        /* A server that is busy says so at once and may be done any moment. */
        tracked.phase = .resting(untilNs: nowNs &+ (failure.isBusy ? 50_000_000 : tracked.backoff.next()))
        reach.waitUntilNs = 0
        reach.say(failure)
        let isNew = trackedStatus.lastError != reason
        trackedStatus.lastError = reason
        if failure.isAnswer {
            if isNew { notices.append(failure.isRefusal ? .refused(reason: reason) : .untrusted(reason: reason)) }
            /* Who refuses us in words is there, and others may be writing. */
            return heardFromUpstream()
        }
        reach.isTurnedAway = evidence == .turnedAway
        let wasUnreachable = reach.isUnreachable
        countAsUnreachable(evidence)
        if isNew, reach.isUnreachable == wasUnreachable {
            notices.append(.unreachable(reason: reason, isServed: wasUnreachable))
        }
    }

    /* An attempt has failed, and nothing has come from the node on any link since it began. Being turned away proves
       it at once when we have no other link, and nothing while we have one: an idle one says nothing of itself. Silence
       proves nothing before it has lasted, since the loss, for as long as a heartbeat's may. */
    private mutating func countAsUnreachable(_ evidence: Evidence) {
        if reach.lastHeardNs <= tracked.attemptNs, isCertain(evidence), !reach.isUnreachable {
            reach.isUnreachable = true
            notices.append(.unreachable(reason: trackedStatus.lastError, isServed: true))
        }
        publishTrust()
    }

    private func isCertain(_ evidence: Evidence) -> Bool {
        switch evidence {
        case .busy: true
        case .turnedAway: !hasOtherLink
        case .silence: nowNs &- max(reach.lastHeardNs, tracked.lostNs) >= Heartbeat.lateNs
        case .nothing: false
        }
    }

    private var hasOtherLink: Bool { shared.isOpen || pins.hasOpen }

    /// A link other than the tracked one has been lost, perhaps the last, and the reason to doubt what the attempt showed.
    mutating func lostOther() {
        if !tracked.isUp, reach.isTurnedAway { countAsUnreachable(.turnedAway) }
    }

    /// Closes the link while it is up.
    mutating func closeTracked(_ reason: String) {
        /* Acknowledged writes are sent again on the next one; these here must not arrive behind them. */
        orders.abortLink(tracked.link)
        loseTracked(reason)
    }

    private mutating func loseTracked(_ reason: String) {
        tracked.link = 0
        tracked.isUp = false
        tracked.tracking = false
        tracked.attemptNs = nowNs
        tracked.lostNs = nowNs
        tracked.isUntried = true
        closeProbe()
        reach.say(reason)
        trackedStatus.tracking = false
        trackedStatus.trackingReason = "the upstream is not connected"
        trackedStatus.lastError = reason
        trackedStatus.failures.count(.lost)
        notices.append(.lost(reason: reason))
        publishTrust()
        passAllFences()
        while let entry = tracked.owed.takeFirst() { lose(entry) }
        /* A link that held for a while is made again at once; one that did not must not be tried in a tight circle. */
        if nowNs &- tracked.upNs >= Backoff.lastNs {
            tracked.backoff.reset()
            beginAttempt(waitNs: policy.readTimeoutNs)
        } else {
            reach.waitUntilNs = nowNs &+ policy.readTimeoutNs
            tracked.phase = .resting(untilNs: nowNs &+ tracked.backoff.next())
        }
    }

    /// Which entries may be served: those of this epoch while its link is up and its heartbeat in time; the others only
    /// while the upstream is unreachable (rule 6).
    mutating func publishTrust() {
        let trusted = tracked.isUp && !tracked.heartbeat.isLate
        orders.trust(
            epoch: trackedStatus.epoch, trusted: trusted, untilNs: tracked.heartbeat.trustedUntilNs,
            serveSuspect: !trusted && reach.isUnreachable)
    }

    // MARK: its time

    /// Those who were held are let go: to an error, or to what is cached if the upstream counts as unreachable.
    mutating func expireWait() {
        guard reach.waitUntilNs != 0, sightNs >= reach.waitUntilNs else { return }
        reach.waitUntilNs = 0
        /* Without a connection tried nothing shows that nobody is there. */
        if !tracked.isUntried { countAsUnreachable(.silence) }
    }

    mutating func expireTracked() {
        guard sightNs >= tracked.deadlineNs else { return }
        switch tracked.phase {
        case .resting:
            beginAttempt(waitNs: 0)
        case .resolving:
            /* The resolver still has its time, but clients need not wait for it. */
            if !tracked.addresses.isEmpty || tracked.freshAddresses != nil { return connectToAddresses() }
            tracked.phase = .resolving(deadlineNs: .max)
            reach.waitUntilNs = 0
            reach.say("resolve: no answer yet")
        case .connecting:
            orders.closeLink(tracked.link)
            connectToNextAddress(
                orFail: .init(
                    reason: "connect: no answer within \(policy.connectTimeoutNs / 1_000_000) ms", kind: .connect),
                .silence)
        case .greeting:
            orders.closeLink(tracked.link)
            let hint = policy.usesTLS ? " (does it speak TLS?)" : ""
            connectToNextAddress(
                orFail: .init(
                    reason: "handshake: no answer within \(policy.handshakeTimeoutNs / 1_000_000) ms\(hint)"),
                .silence)
        case .up:
            beat()
        }
    }

    private mutating func beat() {
        switch tracked.heartbeat.due(sightNs) {
        case .none:
            break
        case .ping:
            if nowNs &- tracked.upNs >= Backoff.lastNs { tracked.backoff.reset() }
            sendPing()
            askControlAgain()
        case .suspend:
            trackedStatus.heartbeatsLate &+= 1
            notices.append(.suspended)
            publishTrust()
            passAllFences()
            if probe.link == 0, nowNs >= probe.notBeforeNs { openProbe() }
        case .giveUp:
            closeTracked("no answer for \(policy.linkTimeoutNs / 1_000_000) ms")
        }
    }

    // MARK: the probe

    private mutating func openProbe() {
        probe.startedNs = nowNs
        probe.deadlineNs = nowNs &+ policy.connectTimeoutNs
        probe.machine = LinkMachine(.probe, policy.credentials)
        probe.link = openLink()
        /* No room is no sign of life, nor of death. */
        if probe.link == 0 { probe.notBeforeNs = nowNs &+ Heartbeat.lateNs }
    }

    mutating func closeProbe() {
        guard probe.link != 0 else { return }
        orders.closeLink(probe.link)
        probe.link = 0
    }

    mutating func heardProbe(_ bytes: Bytes) {
        switch probe.machine.receive(bytes) {
        case .more:
            break
        case .send(let bytes):
            orders.send(probe.link, bytes)
        case .ready:
            closeProbe()
            probe.notBeforeNs = nowNs &+ Heartbeat.lateNs
            heardFromUpstream()
            followIfMoved(probe.machine)
        case .failed(let failure):
            closeProbe()
            if failure.isRefusal { probeAnswered() } else { probeFailed(.busy) }
        }
    }

    /// Whatever it said: it is there.
    mutating func probeAnswered() {
        probe.notBeforeNs = nowNs &+ Heartbeat.lateNs
        heardFromUpstream()
    }

    mutating func probeFailed(_ evidence: Evidence) {
        /* Too early to count: once more when it would. */
        let isDoubted = tracked.isUp && !tracked.heartbeat.isSilent
        probe.notBeforeNs =
            isDoubted ? tracked.heartbeat.deadlineNs : cannotCount ? nowNs : nowNs &+ Heartbeat.lateNs
        guard tracked.isUp, tracked.heartbeat.isSilent, !cannotCount,
            nowNs &- reach.lastHeardNs >= Heartbeat.lateNs, isCertain(evidence), !reach.isUnreachable
        else { return }
        let reason = "it has fallen silent, and a new connection was not answered"
        reach.isUnreachable = true
        reach.say(reason)
        notices.append(.unreachable(reason: reason, isServed: true))
        publishTrust()
        giveUpFlights()
    }

    /// One is under way when the PONG is late, so that cached data is served from then on if nobody is there.
    var probeDeadline: UInt64? {
        if probe.link != 0 { return probeEndNs }
        guard tracked.isUp, !reach.isUnreachable else { return nil }
        if tracked.heartbeat.isSilent { return max(probe.notBeforeNs, reach.lastHeardNs &+ Heartbeat.lateNs) }
        let leadNs = min(policy.connectTimeoutNs, Heartbeat.lateNs / 2)
        return tracked.heartbeat.doubtedFromNs(leadNs: leadNs).map { max(probe.notBeforeNs, $0) }
    }

    /// Something was heard since it began.
    private var cannotCount: Bool { reach.lastHeardNs > probe.startedNs }

    /* Its own silence counts when all else has been silent for long enough. If it cannot count it makes room for one that
       can. */
    private var probeEndNs: UInt64 {
        let silentNs = reach.lastHeardNs &+ Heartbeat.lateNs
        if cannotCount { return min(probe.deadlineNs, silentNs) }
        let lateNs = tracked.isUp && !tracked.heartbeat.isSilent ? tracked.heartbeat.deadlineNs : 0
        return max(probe.deadlineNs, silentNs, lateNs)
    }

    mutating func expireProbe() {
        guard let deadline = probeDeadline, sightNs >= deadline else { return }
        if probe.link == 0 {
            openProbe()
        } else {
            closeProbe()
            probeFailed(.silence)
        }
    }
}
