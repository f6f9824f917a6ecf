/// EventQueue — what happens next in a simulated world: a binary heap by time, then by order of arrival.
struct EventQueue<Event> {
    private struct Item {
        var timeNs: UInt64
        var order: UInt64
        var event: Event
    }

    private var items: [Item] = []
    private var order: UInt64 = 0

    var peekNs: UInt64? { items.first?.timeNs }

    private func isBefore(_ a: Int, _ b: Int) -> Bool {
        items[a].timeNs != items[b].timeNs ? items[a].timeNs < items[b].timeNs : items[a].order < items[b].order
    }

    mutating func push(_ timeNs: UInt64, _ event: Event) {
        items.append(Item(timeNs: timeNs, order: order, event: event))
        order += 1
        var at = items.count - 1
        while at > 0, isBefore(at, (at - 1) / 2) {
            items.swapAt(at, (at - 1) / 2)
            at = (at - 1) / 2
        }
    }

    mutating func pop() -> (timeNs: UInt64, event: Event)? {
        guard let first = items.first else { return nil }
        let last = items.removeLast()
        if !items.isEmpty {
            items[0] = last
            var at = 0
            while true {
                var least = at
                for child in [2 * at + 1, 2 * at + 2] where child < items.count && isBefore(child, least) {
                    least = child
                }
                if least == at { break }
                items.swapAt(at, least)
                at = least
            }
        }
        return (first.timeNs, first.event)
    }
}
