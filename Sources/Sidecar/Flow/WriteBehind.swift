/// WriteBehind — sends what has been acknowledged, and decides what a refusal means.
///
/// The fast path keeps the writes, in the order in which they were acknowledged; here is when they are sent: at once, so that
/// little is ever left, on the tracked link, so that whatever touches their keys afterwards is behind them, and as many at a
/// time as keep the link busy. What comes while a window is on its way is coalesced by key. A write is taken out when the
/// upstream has confirmed it. When the link is lost its fate is unknown, and it is sent again: a SET is the same the second
/// time, and nothing that touches its key has been sent in between.
struct WriteBehind {
    /// On the way at one time.
    static let windowCount = 512
    static let windowBytes = 262_144

    /// After a refusal: not before then.
    var resumeAtNs: UInt64 = 0
    var backoff: Backoff
    /// How long a write that is refused for now is tried again.
    let retryNs: UInt64
    /// The last that were given up, the latest last.
    private(set) var deadLetters: [DeadLetter] = []
    /// How many in all.
    private(set) var givenUp = 0
    /// Since the last line of the log.
    private var untold = 0
    private var refusalToldNs: UInt64?
    private static let refusalTellNs: UInt64 = 10_000_000_000
    private var toldAtNs: UInt64 = 0

    init(retryNs: UInt64, seed: UInt64) {
        self.retryNs = retryNs
        backoff = Backoff(seed: seed)
    }

    fileprivate mutating func bury(_ letter: DeadLetter) {
        if deadLetters.count == DeadLetter.keptMax { deadLetters.removeFirst() }
        deadLetters.append(letter)
        givenUp += 1
        untold += 1
    }

    /// A refusal for now is told when it begins, and every ten seconds while it lasts.
    fileprivate mutating func tellsRefusal(_ nowNs: UInt64) -> Bool {
        if let told = refusalToldNs, nowNs &- told < Self.refusalTellNs { return false }
        refusalToldNs = nowNs
        return true
    }

    /// When the log is told of them, a line a second at most; UInt64.max: there are none to tell of.
    var tellAtNs: UInt64 { untold == 0 ? .max : toldAtNs &+ 1_000_000_000 }

    mutating func takeUntold(_ nowNs: UInt64) -> FlowNotice? {
        guard untold > 0, let last = deadLetters.last else { return nil }
        defer { untold = 0 }
        toldAtNs = nowNs
        return .deadLetters(count: untold, last: last)
    }
}

/// DeadLetter — an acknowledged write that the upstream will not carry out. Its value is not kept: it may be a secret.
struct DeadLetter: Sendable, Equatable {
    static let keptMax = 100
    static let keyBytesMax = 256

    var key: String
    /// The upstream's words, but for those that repeat the command.
    var reason: String
    /// On the engine's clock.
    var atNs: UInt64

    /// A server that does not know a command repeats its arguments, and so the value.
    static func reason(_ error: String) -> String {
        let words = error.split(
            separator: ", with args beginning with:", maxSplits: 1, omittingEmptySubsequences: false)
        return String(words[0])
    }
}

/// Whether a refusal of a write may pass.
enum Refusal {
    /// The server is read-only, full, loading, busy, cannot save, or does not know us just now.
    case forNow
    case forGood

    private static let passing = [
        "READONLY", "OOM", "LOADING", "BUSY", "MASTERDOWN", "NOREPLICAS", "MISCONF", "CLUSTERDOWN", "TRYAGAIN",
        "NOAUTH",
    ]

    /// "OOM command not allowed when used memory > 'maxmemory'."
    init(_ error: String) {
        /* Our own words, in place of an answer that there was no memory for. */
        if error.hasPrefix("ERR local_memory is spent") {
            self = .forNow
            return
        }
        let word = error.prefix { $0 != " " }
        self = Self.passing.contains { word == $0 } ? .forNow : .forGood
    }
}

extension Flow {
    /// Ends every turn: what may be sent is sent.
    @inline(__always)
    mutating func sendWrites() {
        guard policy.writesBehind, tracked.isUp, nowNs >= writes.resumeAtNs else { return }
        sendWindow()
    }

    private mutating func sendWindow() {
        let waiting = orders.writesBehind()
        let room = WriteBehind.windowCount - waiting.flying
        guard waiting.queued > 0, room > 0, !tracked.heartbeat.isLate else { return }
        let sent = orders.sendWritesBehind(tracked.link, count: room, backlogMax: WriteBehind.windowBytes)
        guard sent > 0 else { return }
        owe(
            OwedReply(
                ticket: 0, sentNs: nowNs, awaited: .written, flags: [], count: UInt32(truncatingIfNeeded: sent)))
    }

    /// The reply to the write that has been on its way longest.
    mutating func heardWritten(_ entry: UnsafeMutablePointer<OwedReply>, _ reply: Bytes) {
        entry.pointee.count &-= 1
        if entry.pointee.count == 0 { tracked.owed.removeFirst() }
        guard let error = Reply(reply).errorText else {
            orders.writeBehindIs(.confirmed)
            if writes.resumeAtNs != 0 {
                writes.resumeAtNs = 0
                writes.backoff.reset()
            }
            return
        }
        if Reply(reply).isReadOnly { doubtServer() }
        let (key, refusedNs) = orders.writeBehindFlying()
        let isOver = refusedNs != 0 && nowNs &- refusedNs >= writes.retryNs
        if case .forNow = Refusal(error), key == nil || !isOver {
            orders.writeBehindIs(.retried)
            if writes.tellsRefusal(nowNs) {
                notices.append(
                    .writesRefused(reason: DeadLetter.reason(error), retryMs: writes.retryNs / 1_000_000))
            }
            if nowNs >= writes.resumeAtNs { writes.resumeAtNs = nowNs &+ writes.backoff.next() }
            return
        }
        /* Without a key it was replaced before its answer came: nobody minds. */
        if let key {
            let letter = DeadLetter(
                key: String(decoding: key.prefix(DeadLetter.keyBytesMax), as: UTF8.self),
                reason: DeadLetter.reason(error), atNs: nowNs)
            writes.bury(letter)
        }
        orders.writeBehindIs(.refused)
    }

    @inline(__always)
    mutating func tellDeadLetters() {
        if nowNs >= writes.tellAtNs, let letters = writes.takeUntold(nowNs) { notices.append(letters) }
    }

    /// What is acknowledged and not carried out yet.
    var unwritten: Int {
        guard policy.writesBehind else { return 0 }
        let waiting = orders.writesBehind()
        return waiting.queued + waiting.flying
    }
}
