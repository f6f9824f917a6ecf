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
    /// Those whose client has sent all it will, oldest first: the same.
    private var ending: [LinkID] = []
    /// Those that were given back, each once, and when to look whether they still are: their time limits are equal, but what
    /// is looked at again stands behind.
    private var resting: [(link: LinkID, untilNs: UInt64)] = []

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
        if sessions[place].isResting { resting.removeAll { $0.link == link } }
        (sessions + place).deinitialize(count: 1)
        table.remove(link)
        free.append(place)
        opening.removeAll { $0 == link }
        ending.removeAll { $0 == link }
    }

    mutating func opened(_ link: LinkID) { opening.removeAll { $0 == link } }

    /// The upstream has been told that the link's client has sent all it will, and has until then to close it.
    mutating func ends(_ link: LinkID, deadlineNs: UInt64) {
        guard let session = self[link], !ending.contains(link) else { return }
        session.pointee.endsByNs = deadlineNs
        ending.append(link)
    }

    /// It ends by itself, or by its deadline: its client may be gone.
    func isEnding(_ link: LinkID) -> Bool { ending.contains(link) }

    /// It is given back, and closed if it still is then.
    mutating func rests(_ link: LinkID, untilNs: UInt64) {
        guard let session = self[link] else { return }
        session.pointee.isGivenBack = true
        session.pointee.restsUntilNs = untilNs
        if session.pointee.isResting { return }
        session.pointee.isResting = true
        resting.append((link, untilNs))
    }

    /// Those whose time is over. Looks at what is due only.
    mutating func rested(nowNs: UInt64) -> [LinkID] {
        let due = resting.prefix { $0.untilNs <= nowNs }.map(\.link)
        if due.isEmpty { return [] }
        resting.removeFirst(due.count)
        return due.filter { link in
            guard let session = self[link] else { return false }
            if session.pointee.isGivenBack, session.pointee.restsUntilNs > nowNs {
                resting.append((link, session.pointee.restsUntilNs))
                return false
            }
            session.pointee.isResting = false
            return session.pointee.isGivenBack
        }
    }

    /// One is past its handshake.
    var hasOpen: Bool { count > opening.count }

    var links: [LinkID] {
        let unused = Set(free)
        return (0..<top).filter { !unused.contains($0) }.map { sessions[$0].link }
    }

    /// The link with the nearest deadline: to be opened by, or closed by the upstream.
    var nextDue: (link: LinkID, deadlineNs: UInt64)? {
        var next: (link: LinkID, deadlineNs: UInt64)?
        if let link = opening.first, let session = self[link], case .opening(let deadlineNs) = session.pointee.phase {
            next = (link, deadlineNs)
        }
        if let link = ending.first, let session = self[link], session.pointee.endsByNs < next?.deadlineNs ?? .max {
            next = (link, session.pointee.endsByNs)
        }
        return next
    }

    /// The link of a client, for the rare case that only the client is known.
    func link(of client: ClientID) -> LinkID? { first { $0.client == client }?.pointee.link }

    /// A walk over all. Valid until it is removed.
    func first(where fits: (borrowing PinnedSession) -> Bool) -> UnsafeMutablePointer<PinnedSession>? {
        let unused = Set(free)
        for place in 0..<top where !unused.contains(place) && fits(sessions[place]) { return sessions + place }
        return nil
    }
}
