/// Heartbeat — the PINGs of a tracked link, numbered from 1. Pure.
///
/// They find a link that has fallen silent: one is sent every second, its PONG has 500 ms before the epoch is suspended,
/// and link_timeout before the link is given up (rule 6). And each is a fence (rule 3): when its PONG has come, every push
/// that the upstream sent before it has been applied, so what came by another link before it was sent may be delivered.
///
/// While the link is silent all entries are suspect, so nothing need wait for a fence; but then the epoch must not be
/// trusted again before the fence that would have been waited for.
struct Heartbeat {
    static let intervalNs: UInt64 = 1_000_000_000
    static let lateNs: UInt64 = 500_000_000
    /// What was proven when a PING was sent is trusted for so long.
    static let trustedNs = intervalNs + lateNs

    enum Action {
        case none
        /// Send a PING.
        case ping
        /// The PONG is late: nothing is lost, but nothing is certain.
        case suspend
        /// link_timeout has passed.
        case giveUp
    }

    private let linkTimeoutNs: UInt64
    /// The number of the last PING.
    private(set) var sent: UInt64 = 0
    /// The number of the last that was answered.
    private(set) var answered: UInt64 = 0
    /// When the oldest that is out was sent, or when the last PONG came if that is later; when none is out, when the last
    /// was sent.
    private var sinceNs: UInt64
    /// Somebody waits for a PING that is still to be sent.
    private(set) var isWanted = false
    /// No PONG has come in time, and none since.
    private(set) var isSilent = false
    /// What was filled in this epoch is suspect.
    private(set) var isLate = false
    /// Late: until this one is answered.
    private var trustedAt: UInt64 = 0
    /// What had happened at the upstream by then has been applied.
    private var provenNs: UInt64

    /// The first PING is due one interval after `nowNs`.
    init(linkTimeoutNs: UInt64, nowNs: UInt64) {
        self.linkTimeoutNs = linkTimeoutNs
        sinceNs = nowNs
        provenNs = nowNs
    }

    /// Past it nothing may be trusted, whether or not anybody had the processor to look at the deadline.
    var trustedUntilNs: UInt64 { provenNs &+ Self.trustedNs }

    private var isOut: Bool { sent != answered }

    var deadlineNs: UInt64 {
        if !isOut { return sinceNs &+ Self.intervalNs }
        return sinceNs &+ (isSilent || linkTimeoutNs < Self.lateNs ? linkTimeoutNs : Self.lateNs)
    }

    /// `leadNs` before the PONG that is owed is late; nil when none is, or the link is given up by then.
    func doubtedFromNs(leadNs: UInt64) -> UInt64? {
        guard isOut, !isSilent, linkTimeoutNs >= Self.lateNs else { return nil }
        return sinceNs &+ Self.lateNs &- leadNs
    }

    /// What had come by `sightNs` has been told. Only when the deadline had passed by then is anything to be done.
    mutating func due(_ sightNs: UInt64) -> Action {
        guard sightNs >= deadlineNs else { return .none }
        if !isOut { return .ping }
        if sightNs &- sinceNs >= linkTimeoutNs { return .giveUp }
        isSilent = true
        isLate = true
        trustedAt = isWanted ? sent &+ 1 : sent
        return .suspend
    }

    /// The fence for what has come just now by another link: the next PING, which is to be sent behind it. 0 while there
    /// is nothing to wait for.
    mutating func fence() -> FenceID {
        isWanted = true
        if isSilent { trustedAt = sent &+ 1 }
        return isSilent ? 0 : sent &+ 1
    }

    /// The fence for a reply of this very link, behind whose command `fence` was asked for: its PING is the next to be
    /// answered, since those before it have been.
    var fenceBehind: FenceID { isSilent ? 0 : answered &+ 1 }

    mutating func pinged(_ nowNs: UInt64) {
        if !isOut { sinceNs = nowNs }
        sent &+= 1
        isWanted = false
    }

    /// A PONG has come, for the PING sent at `sentNs`.
    mutating func ponged(_ nowNs: UInt64, sentNs: UInt64) {
        answered &+= 1
        provenNs = sentNs
        if isOut { sinceNs = nowNs }
        isSilent = false
        if answered >= trustedAt { isLate = false }
    }
}
