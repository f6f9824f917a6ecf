import Glibc
import Logging
import Synchronization

/// Looks at the loop's heartbeat from a thread of its own, of ordinary class: it must notice when nothing else runs.
///
/// The loop stores the time at the start of each turn and never sleeps longer than a second, so an old heartbeat means
/// that a turn does not end. /healthz fails then, and a line in the log says since when.
final class Watchdog: Sendable {
    /// A turn longer than this is a failure.
    static let turnNsMax: UInt64 = 2_000_000_000

    private let lastTurnNs: @Sendable () -> UInt64
    private let log: Logger
    private let stuckSinceNs = Atomic<UInt64>(0)

    /// `lastTurnNs`: monotonic, 0 before the first turn.
    init(log: Logger, lastTurnNs: @escaping @Sendable () -> UInt64) {
        self.lastTurnNs = lastTurnNs
        self.log = log
    }

    func start() {
        ControlThread.start(name: "ferrite-watch") {
            while true {
                usleep(250_000)
                self.look(nowNs: MonotonicClock.nowNs())
            }
        }
    }

    /// How long the loop has been in its present turn, if that is too long.
    func stuckNs(nowNs: UInt64) -> UInt64? {
        let last = lastTurnNs()
        guard last != 0, nowNs > last, nowNs - last > Self.turnNsMax else { return nil }
        return nowNs - last
    }

    private func look(nowNs: UInt64) {
        let since = stuckSinceNs.load(ordering: .relaxed)
        if let stuck = stuckNs(nowNs: nowNs) {
            if since == 0 {
                stuckSinceNs.store(nowNs - stuck, ordering: .relaxed)
                log.error("the loop has not ended a turn for \(stuck / 1_000_000) ms; /healthz fails until it does")
            }
        } else if since != 0 {
            log.warning("the loop turns again after \((nowNs - since) / 1_000_000) ms")
            stuckSinceNs.store(0, ordering: .relaxed)
        }
    }
}
