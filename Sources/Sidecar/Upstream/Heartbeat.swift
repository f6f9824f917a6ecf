/// Heartbeat — finds a link that has fallen silent. A PING every second; the PONG has 500 ms, counted from sending,
/// before the epoch is suspended, and link_timeout before the link is given up (rule 6). Pure.
struct Heartbeat {
    static let intervalNs: UInt64 = 1_000_000_000
    static let lateNs: UInt64 = 500_000_000

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
    private var sentNs: UInt64
    private var isOutstanding = false
    private(set) var isLate = false

    /// The first PING is due one interval after `nowNs`.
    init(linkTimeoutNs: UInt64, nowNs: UInt64) {
        self.linkTimeoutNs = linkTimeoutNs
        sentNs = nowNs
    }

    var deadlineNs: UInt64 {
        if !isOutstanding { return sentNs &+ Self.intervalNs }
        return sentNs &+ (isLate || linkTimeoutNs < Self.lateNs ? linkTimeoutNs : Self.lateNs)
    }

    /// What had come by `sightNs` has been told. Only when the deadline had passed by then is anything to be done.
    mutating func due(_ sightNs: UInt64, nowNs: UInt64) -> Action {
        guard sightNs >= deadlineNs else { return .none }
        if !isOutstanding {
            isOutstanding = true
            sentNs = nowNs
            return .ping
        }
        if sightNs &- sentNs >= linkTimeoutNs { return .giveUp }
        isLate = true
        return .suspend
    }

    /// The PONG has come. Returns how long it took.
    mutating func answered(_ nowNs: UInt64) -> UInt64 {
        isOutstanding = false
        isLate = false
        return nowNs &- sentNs
    }
}
