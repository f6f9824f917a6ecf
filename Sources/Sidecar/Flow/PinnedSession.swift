/// PinnedSession — one client's own link to the upstream, for what holds state on its connection or blocks it: which of
/// the bytes that come back answer a command, and which are messages. Pure: the flow performs its verdicts.
///
/// In RESP2 messages are arrays like any reply, and one command may have several confirmations; so the session counts
/// its subscriptions as Redis does, by the number in each confirmation, and takes an array for a message only while
/// there are some. In RESP3 messages are pushes, but so are the confirmations, which are the only answer of their
/// command.
///
/// It also knows when nothing is held on the connection any more, and everything is answered: then the client's next
/// commands need it no more (`holdsNothing`). In doubt something is held.

/// What a command means to its session. From the command table, by name.
enum PinnedRole: UInt8 {
    case plain, subscribe, psubscribe, ssubscribe, unsubscribe, punsubscribe, sunsubscribe
    case monitor, client, hello, reset, info, multi, exec, discard, watch, unwatch, select
    /// Its reply is the id of a client; it may name one.
    case identity, naming
    /// What it leaves on the connection only RESET takes away; `redirecting` may name a client as well. WAIT is among them:
    /// it asks for what was written on its own connection, so that what is written next is written there.
    case keeping, redirecting
    /// CLIENT KILL.
    case killing

    init(commandNamed name: String) {
        switch name {
        case "subscribe": self = .subscribe
        case "psubscribe": self = .psubscribe
        case "ssubscribe": self = .ssubscribe
        case "unsubscribe": self = .unsubscribe
        case "punsubscribe": self = .punsubscribe
        case "sunsubscribe": self = .sunsubscribe
        case "monitor": self = .monitor
        case "client", "client|reply": self = .client
        case "hello": self = .hello
        case "reset": self = .reset
        case "info": self = .info
        case "client|id", "client|getredir": self = .identity
        case "client|kill": self = .killing
        case "client|list", "client|unblock": self = .naming
        case "client|tracking": self = .redirecting
        case "multi": self = .multi
        case "exec": self = .exec
        case "discard": self = .discard
        case "watch": self = .watch
        case "unwatch": self = .unwatch
        case "select": self = .select
        case "asking", "auth", "client|caching", "client|capa", "client|import-source", "client|no-evict",
            "client|no-touch", "client|setinfo", "client|setname", "psync", "readonly", "readwrite", "replconf",
            "script|debug", "sync", "wait", "waitaof":
            self = .keeping
        default: self = .plain
        }
    }

    var subscribes: Bool { self == .subscribe || self == .psubscribe || self == .ssubscribe }
    var unsubscribes: Bool { self == .unsubscribe || self == .punsubscribe || self == .sunsubscribe }

    /// The first element of its confirmations.
    var confirmation: StaticString {
        switch self {
        case .subscribe: "subscribe"
        case .psubscribe: "psubscribe"
        case .ssubscribe: "ssubscribe"
        case .unsubscribe: "unsubscribe"
        case .punsubscribe: "punsubscribe"
        case .sunsubscribe: "sunsubscribe"
        default: ""
        }
    }
}

/// What a link is subscribed to, in numbers, derived from the confirmations: theirs is channels and patterns together.
struct Subscriptions {
    private(set) var channels: Int64 = 0
    private(set) var patterns: Int64 = 0
    private(set) var shardChannels: Int64 = 0

    var isEmpty: Bool { channels | patterns | shardChannels == 0 }

    mutating func confirmed(_ role: PinnedRole, count: Int64) {
        switch role {
        case .subscribe, .unsubscribe: channels = max(count &- patterns, 0)
        case .psubscribe, .punsubscribe: patterns = max(count &- channels, 0)
        case .ssubscribe, .sunsubscribe: shardChannels = max(count, 0)
        default: break
        }
    }

    /// Nothing is left of what the role's command takes away.
    func none(of role: PinnedRole) -> Bool {
        switch role {
        case .unsubscribe: channels == 0
        case .punsubscribe: patterns == 0
        case .sunsubscribe: shardChannels == 0
        default: true
        }
    }
}

struct PinnedSession: ~Copyable {
    enum Phase {
        /// LINK_UP, then the handshake's answers, are due by then.
        case opening(deadlineNs: UInt64)
        case ready
    }

    enum Sending {
        /// A reply is owed.
        case reply
        /// None will come: CLIENT REPLY OFF or SKIP.
        case silence
    }

    enum Verdict: Equatable {
        case answer(SlotID)
        /// More replies of the same command follow.
        case answerMore(SlotID)
        /// The upstream's part of INFO; ours is added.
        case inform(OwedReply)
        /// An id, to be put into our own.
        case identify(SlotID)
        case tell
        /// A line of MONITOR. Were a fence asked for behind each, the next would tell of that fence.
        case tellUnfenced
        case discard
        /// The unanswered commands before it have been carried out.
        case settle
        /// Nobody asked for it.
        case surplus
    }

    private enum Replies {
        case on, off, skipsNext
    }

    let client: ClientID
    /// What CLIENT ID tells it.
    let number: UInt64
    let link: LinkID
    var phase: Phase
    var machine: LinkMachine
    /// The client has sent all it will: the upstream closes the link by then, or we do.
    var endsByNs = UInt64.max
    /// Its client has been told that it needs it no more, and has sent nothing on it since.
    var isGivenBack = false
    /// Since when it has been, plus how long such a link is kept.
    var restsUntilNs: UInt64 = 0
    /// It stands in the queue of those that rest.
    var isResting = false
    private(set) var owed = Owed(capacity: 8)
    private var protocolVersion: UInt8
    private var subscriptions = Subscriptions()
    /// SUBSCRIBE was queued in MULTI: its confirmations are inside EXEC's reply and are not counted.
    private var maySubscribeUnseen = false
    private var isMonitoring = false
    private var replies = Replies.on
    /// What is sent is queued by the upstream, not carried out, CLIENT REPLY like anything; as far as is known: that one
    /// is sent when no MULTI before it is unanswered.
    private var isQueuing = false
    /// Confirmations are still to come.
    private var subscribesOwed = 0
    /// A CLIENT was queued under CLIENT REPLY OFF: EXEC may turn replies on, without a word that we could see.
    private var mayAnswerUnseen = false
    /// Commands that are not answered have been sent, behind which nothing is that will be.
    private var isSilent = false
    /// What will be is on its way.
    private var settlesOwed = false
    /// Between WATCH and EXEC, DISCARD or UNWATCH.
    private var isWatching = false
    /// Another database than 0 is selected.
    private var isElsewhere = false
    /// Until RESET: another user, CLIENT TRACKING, a name of its own, a command that is not known, and the like.
    private var isKept = false
    /// MULTI has been answered with OK, or something with QUEUED, and nothing that ends it since.
    private var isInTransaction = false
    /// Something has been sent since the last RESET of which the replies do not tell what it leaves: HELLO, which the fast
    /// path follows whatever becomes of it, and what is not answered. So has RESET, when it is refused.
    private var mayHoldUnseen = false
    /// SUBSCRIBE was queued since the last RESET.
    private var subscribedSinceReset = false
    /// CLIENT KILL has named it: with this link it goes.
    var isDoomed = false
    /// The link was opened without our credentials, for a client that brings its own: it is not given back.
    private let isStranger: Bool

    /// `name`: what the client called itself, for its link too; empty for none.
    init(
        client: ClientID, number: UInt64, link: LinkID, protocolVersion: UInt8, name: [UInt8], credentials: Credentials,
        isStranger: Bool = false, deadlineNs: UInt64
    ) {
        self.isStranger = isStranger
        self.client = client
        self.number = number
        self.link = link
        self.protocolVersion = protocolVersion
        phase = .opening(deadlineNs: deadlineNs)
        machine = LinkMachine(.plain(protocolVersion: protocolVersion), credentials, name: name)
    }

    /// Notes what a command, about to be sent, will be answered with. `grown` is by how many bytes the queue grew.
    mutating func send(_ slot: SlotID, _ role: PinnedRole, _ request: Bytes, nowNs: UInt64, grown: inout Int) -> Sending
    {
        var role = role
        isGivenBack = false
        if role == .hello { mayHoldUnseen = true }
        switch role {
        case .plain, .hello, .monitor, .info, .identity, .naming, .killing, .keeping, .redirecting, .watch, .unwatch,
            .select:
            break
        case .subscribe, .psubscribe, .ssubscribe, .unsubscribe, .punsubscribe, .sunsubscribe:
            let names = Request.argumentCount(request) - 1
            /* An error, or QUEUED, is held back like any reply; confirmations come under CLIENT REPLY OFF too. */
            if replies != .on, isQueuing || names < 1 && role.subscribes {
                maySubscribeUnseen = maySubscribeUnseen || isQueuing
                subscribedSinceReset = subscribedSinceReset || isQueuing
                break
            }
            if replies == .skipsNext { replies = .on }
            let flags: OwedReply.Flags = names < 1 && role.unsubscribes ? .everything : []
            let count = UInt32(clamping: max(names, 1))
            let entry = OwedReply(
                ticket: slot, sentNs: nowNs, awaited: .confirmations, flags: flags, role: role, count: count)
            if role.subscribes { subscribesOwed += 1 }
            grown &+= owed.append(entry)
            return .reply
        case .client:
            mayAnswerUnseen = mayAnswerUnseen || isQueuing && replies == .off
            if !isQueuing, !refusesReplySwitch, let silence = switchReplies(request) { return silence }
            if !Self.isReplySwitch(request) { role = .keeping }
        case .exec:
            isQueuing = false
        case .multi, .discard, .reset:
            /* Refused for its arguments it leaves all as it is. */
            if Request.argumentCount(request) != 1 {
                role = .plain
                break
            }
            isQueuing = role == .multi
            if role == .reset {
                replies = .on
                mayHoldUnseen = false
                subscribedSinceReset = false
            }
        }
        switch replies {
        case .on:
            var entry = OwedReply(ticket: slot, sentNs: nowNs, awaited: .answer, flags: [], role: role)
            if role == .info { entry.inform(InformationSections(request), protocolVersion: protocolVersion) }
            if role == .select { entry.count = Self.selectsZero(request) ? 0 : 1 }
            grown &+= owed.append(entry)
            return .reply
        case .off:
            break
        case .skipsNext:
            replies = .on
        }
        isSilent = true
        mayHoldUnseen = true
        return .silence
    }

    /// Nothing is owed, and nothing is left on the connection that a command of the client's would find there.
    var holdsNothing: Bool {
        guard case .ready = phase, owed.isEmpty else { return false }
        let isTransaction = isQueuing || isInTransaction || isWatching
        let isSubscribed = !subscriptions.isEmpty || maySubscribeUnseen || isMonitoring
        let isMute = replies != .on || mayAnswerUnseen || isSilent || settlesOwed
        let isChanged = isElsewhere || isKept || mayHoldUnseen || isStranger
        return !isTransaction && !isSubscribed && !isMute && !isChanged
    }

    private static func selectsZero(_ request: Bytes) -> Bool {
        let arguments = Request(request, limit: 2).arguments
        return arguments.count == 2 && arguments[1].lowercased() == "0"
    }

    /// What to send so that the upstream's answer shows that the unanswered commands so far have been carried out; nil when
    /// there are none, when that is on its way, or when it would not be answered itself.
    mutating func settling(nowNs: UInt64, grown: inout Int) -> StaticString? {
        guard isSilent, !settlesOwed, !isQueuing, !refusesReplySwitch, !mayAnswerUnseen, replies != .skipsNext else {
            return nil
        }
        isSilent = false
        settlesOwed = true
        grown &+= owed.append(OwedReply(ticket: 0, sentNs: nowNs, awaited: .settling, flags: []))
        return replies == .off ? Wire.replyOnOff : Wire.ping
    }

    /// We have sent something of our own whose reply is nobody's.
    mutating func oweNothing(nowNs: UInt64) -> Int {
        owed.append(OwedReply(ticket: 0, sentNs: nowNs, awaited: .nothing, flags: []))
    }

    /* In RESP2 a subscriber may do little else, and CLIENT REPLY is not of it. */
    private var refusesReplySwitch: Bool { protocolVersion == 2 && (!subscriptions.isEmpty || subscribesOwed > 0) }

    /* CLIENT REPLY ON|OFF|SKIP; nil for what is answered like any command: ON, with +OK, what is
       misspelt, and every other CLIENT. */
    private mutating func switchReplies(_ request: Bytes) -> Sending? {
        let arguments = Request(request, limit: 4).arguments
        guard arguments.count == 3, Self.isReplySwitch(request) else { return nil }
        switch arguments[2].lowercased() {
        case "on":
            replies = .on
            return nil
        case "off":
            replies = .off
            return .silence
        case "skip":
            if replies == .on { replies = .skipsNext }
            return .silence
        default:
            return nil
        }
    }

    private static func isReplySwitch(_ request: Bytes) -> Bool {
        let arguments = Request(request, limit: 3).arguments
        return arguments.count > 1 && arguments[1].lowercased() == "reply"
    }

    /// A complete reply or push has come.
    mutating func receive(_ bytes: Bytes) -> Verdict {
        let type = bytes.first ?? 0
        if type == UInt8(ascii: ">") { return receivePush(bytes) }
        if isMonitoring, Self.isMonitorLine(bytes) { return .tellUnfenced }
        if type == UInt8(ascii: "*"), protocolVersion == 2, let verdict = receivePubSubArray(bytes) { return verdict }
        guard let entry = owed.first?.pointee else { return .surplus }
        owed.removeFirst()
        switch entry.awaited {
        case .nothing:
            /* Our AUTH behind RESET. */
            if type == UInt8(ascii: "-") { mayHoldUnseen = true }
            return .discard
        case .settling:
            settlesOwed = false
            return .settle
        case .confirmations:
            if entry.role.subscribes { subscribesOwed -= 1 }
            /* An error, or QUEUED in a transaction: its one answer. */
            if type == UInt8(ascii: "+") { maySubscribeUnseen = true }
            return .answer(entry.ticket)
        case .information:
            return .inform(entry)
        default:
            answered(entry, Reply(bytes))
            return entry.role == .identity ? .identify(entry.ticket) : .answer(entry.ticket)
        }
    }

    private mutating func answered(_ entry: OwedReply, _ reply: Reply) {
        guard !reply.isError else {
            if entry.role == .multi, !isNested(reply) { isQueuing = false }
            if entry.role == .reset { mayHoldUnseen = true }
            if reply.errorText?.hasPrefix("EXECABORT") ?? false {
                isWatching = false
                isInTransaction = false
            }
            return
        }
        if reply.isQueued { isInTransaction = true }
        switch entry.role {
        case .watch:
            isWatching = true
        case .multi:
            isInTransaction = true
        case .exec:
            isWatching = false
            isInTransaction = false
        case .discard, .unwatch:
            if reply.isOK { isWatching = false }
            if entry.role == .discard { isInTransaction = false }
        case .select:
            /* QUEUED, too, when it may have been another. */
            if reply.isOK || entry.count != 0 { isElsewhere = entry.count != 0 }
        case .keeping, .redirecting:
            isKept = true
        case .monitor:
            /* QUEUED: EXEC turns it on. */
            if reply.isOK { isMonitoring = true } else { isKept = true }
        case .hello:
            if reply.type == UInt8(ascii: "%") { protocolVersion = 3 }
            if reply.type == UInt8(ascii: "*") { protocolVersion = 2 }
        case .reset:
            protocolVersion = 2
            subscriptions = Subscriptions()
            maySubscribeUnseen = subscribedSinceReset
            isInTransaction = false
            isMonitoring = false
            isWatching = false
            isElsewhere = false
            isKept = false
        default:
            break
        }
    }

    /* "ERR MULTI calls can not be nested", or Valkey's words for it: it goes on. */
    private func isNested(_ reply: Reply) -> Bool {
        guard let text = reply.errorText else { return false }
        return text.contains("nested") || text.contains("inside a transaction")
    }

    private mutating func receivePush(_ bytes: Bytes) -> Verdict {
        guard let reply = PubSubReply(bytes) else { return .tell }
        return confirm(reply) ?? .tell
    }

    /* Nil: an ordinary reply. */
    private mutating func receivePubSubArray(_ bytes: Bytes) -> Verdict? {
        let isConfirming = owed.first?.pointee.awaited == .confirmations
        guard isConfirming || !subscriptions.isEmpty || maySubscribeUnseen, let reply = PubSubReply(bytes) else {
            return nil
        }
        if let verdict = confirm(reply) { return verdict }
        guard !subscriptions.isEmpty || maySubscribeUnseen else { return nil }
        let isMessage = reply.elements == 3 && (reply.kind.equals("message") || reply.kind.equals("smessage"))
        let isPatternMessage = reply.elements == 4 && reply.kind.equals("pmessage")
        /* The upstream takes a shard channel away when its slot moves. */
        let isTaken = reply.elements == 3 && reply.kind.equals("sunsubscribe")
        return isMessage || isPatternMessage || isTaken ? .tell : nil
    }

    /* Nil: not a confirmation of the command whose reply comes next. */
    private mutating func confirm(_ reply: PubSubReply) -> Verdict? {
        guard let entry = owed.first, entry.pointee.awaited == .confirmations,
            reply.kind.equals(entry.pointee.role.confirmation), let count = reply.subscriptionCount
        else { return nil }
        let role = entry.pointee.role
        let slot = entry.pointee.ticket
        subscriptions.confirmed(role, count: count)
        let isLast: Bool
        if entry.pointee.flags.contains(.everything) {
            isLast = subscriptions.none(of: role)
        } else {
            entry.pointee.count &-= 1
            isLast = entry.pointee.count == 0
        }
        if isLast {
            owed.removeFirst()
            if role.subscribes { subscribesOwed -= 1 }
        }
        return isLast ? .answer(slot) : .answerMore(slot)
    }

    /* +1339518083.107412 [0 127.0.0.1:60866] "keys" "*" */
    private static func isMonitorLine(_ bytes: Bytes) -> Bool {
        guard bytes.count > 20, bytes[0] == UInt8(ascii: "+") else { return false }
        var at = 1
        while at < 32, at < bytes.count, bytes[at] == UInt8(ascii: ".") || bytes[at] &- UInt8(ascii: "0") <= 9 {
            at &+= 1
        }
        return at > 8 && at &+ 1 < bytes.count && bytes[at] == UInt8(ascii: " ") && bytes[at &+ 1] == UInt8(ascii: "[")
    }
}
