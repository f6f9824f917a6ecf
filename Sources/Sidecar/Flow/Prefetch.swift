/// Prefetch — fetches keys by pattern before anybody has asked for them: at the start, and after a flush.
///
///     waiting ─► scanning ─► done
///                 SCAN page ─► names ─► fetch, fetch, …      one page at a time, both at their own pace
///
/// What was hot in an earlier process (warm_start) comes first, without SCAN. SCAN travels on the tracked link like any passed
/// command. It walks over the whole keyspace whatever it is to MATCH, so one walk serves all patterns: of several, names are
/// matched here. The names of a page are fetched by flights that nobody waits for, under the same rules as all others: what
/// comes is registered, and spoiled by a change. The fast path refuses what would need more than `share` of the budget, or the
/// room of what clients have asked for. It ends when the walk is through, the share is used up or `timeout` has passed: a
/// server whose cursor never comes back to 0 costs no more.
/// A state machine: told the time, and what came.
struct Prefetch {
    struct Policy: Sendable {
        var patterns: [[UInt8]] = []
        var scanIntervalNs: UInt64 = 10_000_000
        var fillsPerSecond: UInt64 = 2_000
        var jitterNs: UInt64 = 0
        var timeoutNs: UInt64 = 30_000_000_000
        /// What was hot in an earlier process: before the patterns, once.
        var warm = HotNames()
    }

    enum Phase: Equatable {
        /// Nothing to do, or nothing more.
        case resting
        case waiting(untilNs: UInt64)
        case scanning
    }

    static let pageKeys = 100
    /// Of one page's names; what a page has more is passed over.
    static let pageBytesMax = 65_536
    static let errorsMax = 5

    let policy: Policy
    private(set) var phase = Phase.resting
    private(set) var status = PrefetchStatus()
    private var random: Backoff
    private var beganNs: UInt64 = 0
    private var byHand: [[UInt8]]?
    /// What was to begin while another was under way begins when that has ended; once, however often it was to.
    private var isWantedAgain = false
    /// Where the walk goes on; nil: it is through.
    private var cursor: [UInt8]?
    private var nextScanNs: UInt64 = 0
    private var isAsked = false
    /// What is asked was so by one that has ended.
    private var isOutdated = false
    private var errors = 0
    /// Names of the page at hand that are still to be fetched.
    private var names = HotNames()
    private var next = 0
    /// They are those of `warm`.
    private var isWarm = false
    private var warm: HotNames
    private var fillsFromNs: UInt64 = 0
    /// When the log was last told how far it is; 0: that it has begun it is not told yet.
    private var toldNs: UInt64 = 0
    private static let tellNs: UInt64 = 5_000_000_000

    init(_ policy: Policy, seed: UInt64) {
        self.policy = policy
        random = Backoff(seed: seed)
        warm = policy.warm
        status.isOn = !policy.patterns.isEmpty || !warm.isEmpty
    }

    /// The upstream is there for the first time, or everything has been dropped. A thousand pods do not begin at once.
    mutating func begin(_ nowNs: UInt64) {
        guard !policy.patterns.isEmpty || !warm.isEmpty else { return }
        switch phase {
        case .resting: break
        /* It has not begun, so it comes behind the flush. */
        case .waiting where byHand == nil: return
        case .waiting, .scanning:
            isWantedAgain = true
            return
        }
        let jitterNs = policy.jitterNs == 0 ? 0 : random.next(upTo: policy.jitterNs)
        phase = .waiting(untilNs: nowNs &+ jitterNs)
    }

    /// Of this pattern alone, at once; false when one is under way. The configured one, if it waits, begins behind it.
    mutating func begin(_ nowNs: UInt64, pattern: [UInt8]) -> Bool {
        switch phase {
        case .resting: break
        case .waiting where byHand == nil: isWantedAgain = true
        case .waiting, .scanning: return false
        }
        byHand = [pattern]
        phase = .waiting(untilNs: nowNs)
        return true
    }

    /// Of what was hot in an earlier process, what has not been fetched: the next process should.
    var unfetched: HotNames { isWarm ? names.from(next) : warm }

    private var patterns: [[UInt8]] { byHand ?? policy.patterns }

    /// When it wants to go on; UInt64.max: not by itself.
    var deadlineNs: UInt64 {
        switch phase {
        case .resting: .max
        case .waiting(let untilNs): untilNs
        case .scanning: next < names.count ? fillsFromNs : isAsked ? beganNs &+ policy.timeoutNs : nextScanNs
        }
    }

    /// What to send now, if anything.
    enum Step {
        case none
        /// Without a pattern: all names, to be matched here.
        case scan(cursor: [UInt8], pattern: [UInt8]?)
        /// It has ended.
        case ended(PrefetchStatus)
    }

    mutating func step(_ nowNs: UInt64, fetch: (Bytes) -> FetchedAhead) -> Step {
        if case .waiting(let untilNs) = phase, nowNs >= untilNs { start(nowNs) }
        guard phase == .scanning else { return .none }
        if nowNs &- beganNs >= policy.timeoutNs { return end(nowNs, .timedOut) }
        if next < names.count, !fill(nowNs, fetch) { return end(nowNs, .full) }
        guard next == names.count, !isAsked, nowNs >= nextScanNs else { return .none }
        guard let cursor else { return end(nowNs, .done) }
        isAsked = true
        nextScanNs = nowNs &+ policy.scanIntervalNs
        status.pages &+= 1
        return .scan(cursor: cursor, pattern: patterns.count == 1 ? patterns[0] : nil)
    }

    /// How far it is: when it begins, and every five seconds.
    mutating func progress(_ nowNs: UInt64) -> PrefetchStatus? {
        guard phase == .scanning, toldNs == 0 || nowNs &- toldNs >= Self.tellNs else { return nil }
        toldNs = nowNs
        return status
    }

    private mutating func start(_ nowNs: UInt64) {
        phase = .scanning
        toldNs = 0
        beganNs = nowNs
        nextScanNs = nowNs
        fillsFromNs = nowNs
        cursor = patterns.isEmpty ? nil : Array("0".utf8)
        errors = 0
        forgetNames()
        status = PrefetchStatus()
        status.isOn = true
        status.state = .running
        guard byHand == nil else { return }
        swap(&names, &warm)
        isWarm = true
        status.names = UInt64(names.count)
    }

    private mutating func forgetNames() {
        warm = unfetched
        isWarm = false
        names.removeAll()
        next = 0
    }

    private mutating func end(_ nowNs: UInt64, _ state: PrefetchStatus.State) -> Step {
        forgetNames()
        phase = .resting
        byHand = nil
        isOutdated = isAsked
        status.state = state
        status.milliseconds = (nowNs &- beganNs) / 1_000_000
        if isWantedAgain {
            isWantedAgain = false
            begin(nowNs)
        }
        return .ended(status)
    }

    /// As many as the pace allows; false when there is no room for more.
    private mutating func fill(_ nowNs: UInt64, _ fetch: (Bytes) -> FetchedAhead) -> Bool {
        /* Time that went by without anything to fetch gives no right to more of a burst than that. */
        fillsFromNs = max(fillsFromNs, nowNs &- min(nowNs, 20_000_000))
        while next < names.count, fillsFromNs <= nowNs {
            switch names[next].withUnsafeBufferPointer(fetch) {
            case .begun: status.fetched &+= 1
            case .never: status.notKept &+= 1
            case .later: return true
            case .full: return false
            }
            next += 1
            fillsFromNs &+= 1_000_000_000 / policy.fillsPerSecond
        }
        return true
    }

    /// The reply to SCAN; one that cannot be read counts as an error.
    mutating func heard(_ reply: Bytes, _ nowNs: UInt64) {
        guard isOurs() else { return }
        var reader = ReplyReader(reply)
        guard let (type, parts) = reader.header(), type == UInt8(ascii: "*"), parts == 2, let cursor = reader.text(),
            let (listType, count) = reader.header(), listType == UInt8(ascii: "*")
        else { return failed(nowNs, "the reply to SCAN is none") }
        forgetNames()
        var left = count
        while left > 0, let name = reader.text() {
            left &-= 1
            guard patterns.count == 1 || patterns.contains(where: { Glob.matches($0, name) }) else { continue }
            status.names &+= 1
            if names.bytes.count &+ name.count <= Self.pageBytesMax { names.append(name) }
        }
        errors = 0
        self.cursor = cursor.elementsEqual([UInt8(ascii: "0")]) ? nil : Array(cursor)
    }

    /// An answer has come; false when nobody wants it any more.
    private mutating func isOurs() -> Bool {
        defer { isOutdated = false }
        isAsked = false
        return phase == .scanning && !isOutdated
    }

    /// An error, or a link that was lost: the same page again, a few times; then no further one.
    mutating func failed(_ nowNs: UInt64, _ error: String) {
        guard isOurs() else { return }
        errors += 1
        status.errors &+= 1
        status.lastError = error
        nextScanNs = nowNs &+ 200_000_000 &* UInt64(errors)
        if errors >= Self.errorsMax { cursor = nil }
    }
}

/// What becomes of a key that is to be fetched ahead.
enum FetchedAhead {
    /// Or it needs not be fetched.
    case begun
    /// Its rule keeps no copy.
    case never
    /// When one of those under way has been answered: behind more of them clients' answers would wait.
    case later
    /// There is no room that is free.
    case full
}

/// What becomes of a pattern that is asked for by hand.
enum PrefetchAnswer: Sendable {
    case begun
    /// Another has not ended.
    case underWay
    /// Nothing would be kept.
    case bypassed
    /// The upstream is not connected, or does not answer.
    case unreachable
}

/// PrefetchStatus — how far it has come, for the log, the metrics and ferritectl.
struct PrefetchStatus: Sendable, Equatable {
    enum State: String, Sendable {
        /// It has not begun, or is off.
        case waiting
        case running
        case done
        /// `share`, or all that was free, is used up.
        case full
        case timedOut = "timed out"
    }

    var isOn = false
    var state = State.waiting
    /// SCAN calls.
    var pages: UInt64 = 0
    /// That SCAN has told, and that match.
    var names: UInt64 = 0
    /// Of which were fetched, or were there already.
    var fetched: UInt64 = 0
    /// Of which were not fetched, since their rule says cache = false.
    var notKept: UInt64 = 0
    var errors: UInt64 = 0
    /// The upstream's words, of which `errorText` bounds the length, or ours; empty: there was no error.
    var lastError = ""
    /// How long it took.
    var milliseconds: UInt64 = 0
}

extension Flow {
    /// Ends every turn.
    @inline(__always)
    mutating func prefetchOn() {
        guard prefetch.phase != .resting else { return }
        prefetchStep()
    }

    /* Under bypass nothing would be kept: it goes on when that is over. */
    var mayPrefetch: Bool { tracked.isUp && !isBypassed && !tracked.heartbeat.isLate && !breaker.isOpen && !isCrowded }

    private mutating func prefetchStep() {
        guard mayPrefetch else { return }
        let orders = orders
        switch prefetch.step(nowNs, fetch: { orders.fetch($0) }) {
        case .none: break
        case .scan(let cursor, let pattern):
            orders.send(tracked.link, Self.scan(cursor, pattern, isTyped: tracked.speaksRESP3))
            owe(OwedReply(ticket: 0, sentNs: nowNs, awaited: .scan, flags: []))
        case .ended(let status): notices.append(.prefetched(status))
        }
        if let status = prefetch.progress(nowNs) { notices.append(.prefetching(status)) }
    }

    /* Only strings are kept; a server without RESP3 may not know TYPE here. */
    private static func scan(_ cursor: [UInt8], _ pattern: [UInt8]?, isTyped: Bool) -> [UInt8] {
        var words = [Array("SCAN".utf8), cursor]
        if let pattern { words += [Array("MATCH".utf8), pattern] }
        words += [Array("COUNT".utf8), Array(String(Prefetch.pageKeys).utf8)]
        if isTyped { words += [Array("TYPE".utf8), Array("string".utf8)] }
        return Credentials.encode(words)
    }

    mutating func heardScan(_ reply: Bytes) {
        if let error = Reply(reply).errorText { prefetch.failed(nowNs, error) } else { prefetch.heard(reply, nowNs) }
    }
}
