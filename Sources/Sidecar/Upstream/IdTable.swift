/// IdTable — finds the place of a pinned session by its link's id: open addressing over memory taken once.
struct IdTable: ~Copyable {
    private struct Place {
        var id: UInt64 /* 0: free */
        var value: Int
    }

    private let places: UnsafeMutablePointer<Place>
    private let mask: Int

    /// Holds up to `count` ids.
    init(holding count: Int) {
        var capacity = 16
        while capacity < count * 2 { capacity *= 2 }
        mask = capacity - 1
        places = .allocate(capacity: capacity)
        places.initialize(repeating: Place(id: 0, value: 0), count: capacity)
    }

    deinit { places.deallocate() }

    var bytes: Int { (mask + 1) * MemoryLayout<Place>.stride }

    @inline(__always)
    private func home(_ id: UInt64) -> Int {
        Int(truncatingIfNeeded: (id &* 0x9E37_79B9_7F4A_7C15) >> 32) & mask
    }

    @inline(__always)
    subscript(id: UInt64) -> Int? {
        var at = home(id)
        while places[at].id != 0 {
            if places[at].id == id { return places[at].value }
            at = (at &+ 1) & mask
        }
        return nil
    }

    mutating func insert(_ id: UInt64, _ value: Int) {
        var at = home(id)
        while places[at].id != 0 { at = (at &+ 1) & mask }
        places[at] = Place(id: id, value: value)
    }

    mutating func remove(_ id: UInt64) {
        var at = home(id)
        while places[at].id != id {
            if places[at].id == 0 { return }
            at = (at &+ 1) & mask
        }
        /* Shift back what would no longer be found across the hole. */
        var next = (at &+ 1) & mask
        while places[next].id != 0 {
            let distance = (next &- home(places[next].id)) & mask
            if distance >= (next &- at) & mask {
                places[at] = places[next]
                at = next
            }
            next = (next &+ 1) & mask
        }
        places[at].id = 0
    }
}
