/// TurnedAway — clients that memory or max_clients had no room for, for a line in the log now and then: a client only sees
/// its connection end.
struct TurnedAway: Sendable, Equatable {
    var refused: UInt64 = 0
    var closed: UInt64 = 0

    static func - (now: TurnedAway, before: TurnedAway) -> TurnedAway {
        TurnedAway(refused: now.refused &- before.refused, closed: now.closed &- before.closed)
    }
}

extension Flow {
    /// As counted since the start.
    private var countOfTurnedAway: TurnedAway {
        let values = orders.stats()
        func value(_ name: String) -> UInt64 { orders.metricOffset(name, "").map { values[$0] } ?? 0 }
        return TurnedAway(
            refused: value("ferrite_sidecar_connections_refused_total"),
            closed: value("ferrite_sidecar_connections_starved_total"))
    }

    mutating func noteTurnedAway() {
        let now = countOfTurnedAway
        guard now != turnedAway else { return }
        notices.append(.turnedAway(now - turnedAway))
        turnedAway = now
    }
}
