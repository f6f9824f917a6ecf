/// EventQueue — what happens next in a simulated world: a binary heap by time, then by order of arrival. The heap holds
/// places of events, which do not move.
struct EventQueue<Event> {
    private struct Item {
        var timeNs: UInt64
        var order: UInt32
        var place: UInt32

        @inline(__always)
        func isBefore(_ other: Item) -> Bool {
            timeNs != other.timeNs ? timeNs < other.timeNs : order < other.order
        }
    }

    private var items: [Item] = []
    private var events: [Event?] = []
    private var free: [UInt32] = []
    private var order: UInt32 = 0

    var peekNs: UInt64? { items.first?.timeNs }

    mutating func push(_ timeNs: UInt64, _ event: Event) {
        let place = free.popLast() ?? UInt32(events.count)
        if place == events.count { events.append(event) } else { events[Int(place)] = event }
        let item = Item(timeNs: timeNs, order: order, place: place)
        order += 1
        items.append(item)
        var hole = items.count - 1
        while hole > 0, item.isBefore(items[(hole - 1) / 2]) {
            items[hole] = items[(hole - 1) / 2]
            hole = (hole - 1) / 2
        }
        items[hole] = item
    }

    mutating func removeAll(where isOver: (Event) -> Bool) {
        items.removeAll { item in
            guard let event = events[Int(item.place)], isOver(event) else { return false }
            events[Int(item.place)] = nil
            free.append(item.place)
            return true
        }
        items.sort { $0.isBefore($1) }
    }

    mutating func pop() -> (timeNs: UInt64, event: Event)? {
        guard let first = items.first, let last = items.popLast() else { return nil }
        var hole = 0
        while 2 * hole + 1 < items.count {
            var child = 2 * hole + 1
            if child + 1 < items.count, items[child + 1].isBefore(items[child]) { child += 1 }
            if last.isBefore(items[child]) { break }
            items[hole] = items[child]
            hole = child
        }
        if !items.isEmpty { items[hole] = last }
        guard let event = events[Int(first.place)].take() else { return nil }
        free.append(first.place)
        return (first.timeNs, event)
    }
}
