/// Owed — a link's queue of replies to come: who gets the next one and what happens to it.
///
/// A ring of fixed-size entries in the order of sending, therefore in the order of their deadlines too. An entry leaves
/// when its reply has come, however late. Positions count up for ever and are masked when used.

/// What the next reply of an entry is.
enum Awaited: UInt8 {
    /// CLIENT CACHING YES; then `registration` for a group, `expiry` otherwise.
    case caching
    /// EXISTS of a group's keys, under CACHING; the group's members stand behind it.
    case registration
    /// PTTL of a flight's key; then `value` if the entry wants one.
    case expiry
    /// GET of a flight's key, or an MGET.
    case value
    /// A passed command.
    case answer
    /// INFO, to which our own section is added.
    case information
    /// A PING of our own: heartbeat or fence.
    case pong
    /// Our own COMMAND.
    case commands
    /// Writes that had been acknowledged, `count` of them.
    case written
    /// What the fleet's control key says.
    case control
    /// A page of names to fetch ahead.
    case scan
    /// A reply that nobody wants.
    case nothing
    /// Of our own, behind writes that are not answered.
    case settling
    /// SUBSCRIBE and its like: `count` confirmations, or as many as the link has subscriptions.
    case confirmations
}

struct OwedReply: Equatable {
    struct Flags: OptionSet {
        let rawValue: UInt8
        /// The read was announced by CACHING, or needs not to be.
        static let tracked = Flags(rawValue: 1)
        /// Its GET follows the PTTL; or it is an MGET.
        static let wantsValue = Flags(rawValue: 2)
        /// CACHING is for a group.
        static let group = Flags(rawValue: 4)
        /// Changes nothing at the upstream.
        static let pureRead = Flags(rawValue: 8)
        /// The client speaks RESP3.
        static let clientRESP3 = Flags(rawValue: 16)
        /// UNSUBSCRIBE without a name.
        static let everything = Flags(rawValue: 32)
        /// May write keys that we cannot name: a fence has been asked for behind it.
        static let fenced = Flags(rawValue: 64)
        /// Asked because the upstream has announced a change.
        static let announced = Flags(rawValue: 128)
    }

    /// Slot or flight; zero for our own.
    var ticket: UInt64
    var sentNs: UInt64
    var awaited: Awaited
    var flags: Flags
    /// What the session must do when the reply is there (pinned links).
    var role: PinnedRole = .plain
    /// Members of a group, or confirmations to come.
    var count: UInt32 = 0

    /// A reader waits for it no longer than read_timeout.
    @inline(__always)
    var isTimed: Bool { flags.contains(.wantsValue) }
}

struct Owed: ~Copyable {
    private var entries: UnsafeMutablePointer<OwedReply>
    private var capacity: Int
    private var head = 0
    private var tail = 0
    /// Where the search for the next deadline goes on: nobody waits for what stands before it.
    private var timed = 0

    /// `capacity` must be a power of two.
    init(capacity: Int) {
        self.capacity = capacity
        entries = .allocate(capacity: capacity)
    }

    deinit { entries.deallocate() }

    @inline(__always) var count: Int { tail &- head }
    @inline(__always) var isEmpty: Bool { tail == head }
    /// What the ring itself takes.
    var bytes: Int { capacity * MemoryLayout<OwedReply>.stride }

    /// The entry whose reply comes next; nil when none is owed. Valid until the next change of the queue.
    @inline(__always)
    var first: UnsafeMutablePointer<OwedReply>? {
        head == tail ? nil : entries + (head & (capacity &- 1))
    }

    /// The entry `distance` behind the first; nil past the end.
    @inline(__always)
    func entry(behindFirst distance: Int) -> UnsafeMutablePointer<OwedReply>? {
        distance < tail &- head ? entries + ((head &+ distance) & (capacity &- 1)) : nil
    }

    /// Returns by how many bytes the ring has grown, nearly always zero.
    @inline(__always)
    mutating func append(_ entry: OwedReply) -> Int {
        var grown = 0
        if tail &- head == capacity { grown = grow() }
        (entries + (tail & (capacity &- 1))).initialize(to: entry)
        tail &+= 1
        return grown
    }

    /// Only when `first` is not nil.
    @inline(__always)
    mutating func removeFirst() {
        head &+= 1
    }

    mutating func takeFirst() -> OwedReply? {
        guard let entry = first?.pointee else { return nil }
        removeFirst()
        return entry
    }

    /// The oldest entry for which somebody still waits; found in amortised constant time.
    @inline(__always)
    mutating func firstTimed() -> OwedReply? {
        if timed &- head < 0 { timed = head }
        while timed != tail {
            let entry = entries + (timed & (capacity &- 1))
            if entry.pointee.isTimed { return entry.pointee }
            timed &+= 1
        }
        return nil
    }

    /// Nobody waits any longer for what `firstTimed` gave; the entry stays owed.
    mutating func giveUpFirstTimed() {
        if timed != tail { timed &+= 1 }
    }

    /// Of a first entry that is timed: nobody waits for it any longer.
    @inline(__always)
    var firstIsGivenUp: Bool { timed &- head > 0 }

    private mutating func grow() -> Int {
        let larger = UnsafeMutablePointer<OwedReply>.allocate(capacity: capacity &* 2)
        let mask = capacity &- 1
        let largerMask = capacity &* 2 &- 1
        for position in head..<tail {
            (larger + (position & largerMask)).initialize(to: entries[position & mask])
        }
        let before = bytes
        entries.deallocate()
        entries = larger
        capacity &*= 2
        return bytes - before
    }
}
