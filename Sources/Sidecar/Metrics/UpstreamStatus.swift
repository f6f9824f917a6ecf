/// The upstream as the loop sees it, for people and for metrics. Kept by the link machine, copied into a snapshot.
struct UpstreamStatus: Sendable, Equatable {
    enum State: String, Sendable, CaseIterable {
        /// The first connection, or one after a loss, is being made; nothing says yet that it will fail.
        case connecting
        /// The tracked link is up and its handshake done.
        case up
        /// The heartbeat is late: nothing is lost, but nothing is certain.
        case suspended
        /// Nothing has come from it and a fresh connection has failed: suspect entries are served.
        case unreachable
    }

    /// As configured, "host:port".
    var address: String
    var state: State
    /// CLIENT TRACKING is on: changes made elsewhere are announced to us.
    var tracking: Bool
    /// Why tracking is off, as a sentence; empty while it is on.
    var trackingReason: String
    /// How many times a tracked link has come up, the present one included.
    var epoch: UInt32
    /// Times the tracked link was made again after a loss.
    var reconnects: UInt64
    /// The last failure of the tracked link with its cause ("connect: Connection refused"), empty if there was none.
    var lastError: String
    /// Round trip of the last PING, 0 before the first.
    var roundTripNs: UInt64
    /// Reads that were not answered within read_timeout.
    var timeouts: UInt64
    /// Times the heartbeat was late.
    var heartbeatsLate: UInt64
    /// PINGs sent so that what came by other links could be delivered (rule 3).
    var fences: UInt64 = 0
    /// Of attempts to reach it, and losses.
    var failures = UpstreamFailures()
    var prefetch = PrefetchStatus()
    var journal = JournalStatus()
    /// Nothing is served from the cache.
    var isBypassed = false
    /// Reads are not answered in time, and only few are sent.
    var breakerIsOpen = false
    /// Times that began.
    var breakerOpened: UInt64 = 0
    /// Connections to the upstream that are open, pinned ones included.
    var links: UInt32

    init(
        address: String, state: State = .connecting, tracking: Bool = false, trackingReason: String = "",
        epoch: UInt32 = 0, reconnects: UInt64 = 0, lastError: String = "", roundTripNs: UInt64 = 0,
        timeouts: UInt64 = 0,
        heartbeatsLate: UInt64 = 0, links: UInt32 = 0
    ) {
        self.address = address
        self.state = state
        self.tracking = tracking
        self.trackingReason = trackingReason
        self.epoch = epoch
        self.reconnects = reconnects
        self.lastError = lastError
        self.roundTripNs = roundTripNs
        self.timeouts = timeouts
        self.heartbeatsLate = heartbeatsLate
        self.links = links
    }
}
