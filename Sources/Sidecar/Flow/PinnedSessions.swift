/// PinnedSessions — the sessions of all pinned clients, in memory taken once, found by their link.
struct PinnedSessions: ~Copyable {
    private let sessions: UnsafeMutablePointer<PinnedSession>
    private let capacity: Int
    private var free: [Int]
    private var table: IdTable
    /// Places in use, below this.
    private var top = 0
    /// Those being opened, oldest first: their time limits are equal.
    private var opening: [LinkID] = []

    init(max: Int) {
        capacity = max
        sessions = .allocate(capacity: max)
        free = []
        table = IdTable(holding: max)
    }

    deinit {
        /* The places in use are those that are not free. */
        let unused = Set(free)
        for place in 0..<top where !unused.contains(place) { (sessions + place).deinitialize(count: 1) }
        sessions.deallocate()
    }

    var bytes: Int { table.bytes }
    var count: Int { top - free.count }

    /// Valid until it is removed. Nil for what is no pinned link.
    @inline(__always)
    subscript(link: LinkID) -> UnsafeMutablePointer<PinnedSession>? {
        guard let place = table[link] else { return nil }
        return sessions + place
    }

    /// False when there is no room.
    mutating func insert(_ session: consuming PinnedSession) -> Bool {
        let place: Int
        if let last = free.popLast() {
            place = last
        } else if top < capacity {
            place = top
            top += 1
        } else {
            return false
        }
        let link = session.link
        (sessions + place).initialize(to: session)
        table.insert(link, place)
        opening.append(link)
        return true
    }

    mutating func remove(_ link: LinkID) {
        guard let place = table[link] else { return }
        (sessions + place).deinitialize(count: 1)
        table.remove(link)
        free.append(place)
        opening.removeAll { $0 == link }
    }

    mutating func opened(_ link: LinkID) { opening.removeAll { $0 == link } }

    /// The link whose opening has the nearest deadline.
    var nextOpening: (link: LinkID, deadlineNs: UInt64)? {
        guard let link = opening.first, let place = table[link] else { return nil }
        guard case .opening(let deadlineNs) = sessions[place].phase else { return nil }
        return (link, deadlineNs)
    }

    /// The link of a client; a walk over all, for the rare case that only the client is known.
    func link(of client: ClientID) -> LinkID? {
        let unused = Set(free)
        for place in 0..<top where !unused.contains(place) && sessions[place].client == client {
            return sessions[place].link
        }
        return nil
    }
}
