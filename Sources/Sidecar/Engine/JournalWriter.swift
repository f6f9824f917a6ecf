import Glibc
import Synchronization

/// JournalWriter — the thread that waits for the disk. Of ordinary class: clients wait for it.
final class JournalWriter: Sendable {
    private let worker = ControlWorker(name: "ferrite-journal", isUrgent: true)
    /* Of the thread that opened it until the loop runs, then of the worker's. */
    nonisolated(unsafe) private let journal: Journal

    /// Opens the directory.
    init(_ path: String, fsync: SidecarConfig.JournalFsync, bytesMax: Int) throws(JournalFailure) {
        journal = try Journal(path, fsync: fsync, bytesMax: bytesMax, clockMs: { Self.clockMs() })
    }

    var status: JournalStatus { journal.status }

    /// Hands what earlier processes have left to the engine; returns what the log is to tell. The loop thread, before the
    /// loop runs.
    func restore(to engine: FastPath) throws(JournalFailure) -> [FlowNotice] {
        try journal.restore(to: engine, Self.clockMs())
    }

    /// Any thread; never waits. `whenDone` runs on the journal's thread.
    func run(_ work: JournalWork, whenDone: @escaping @Sendable (JournalOutcome) -> Void) {
        worker.run { [self] in whenDone(journal.perform(work)) }
    }

    /// A disk that has not answered by then may never.
    static let patienceSeconds = 2

    /// True when all that it was told to do is done, `whenDone` included; false when the disk does not answer.
    func wait() -> Bool {
        let done = Semaphore()
        worker.run { done.signal() }
        return done.wait(seconds: Self.patienceSeconds)
    }

    /// What came of it; nil when the disk does not answer. The loop thread, when the loop has ended.
    func finish(_ work: JournalWork) -> JournalOutcome? {
        let outcome = Outcome()
        run(work) { done in outcome.value.withLock { $0 = done } }
        return wait() ? outcome.value.withLock { $0 } : nil
    }

    /// Outlives whoever does not wait for it any longer.
    private final class Outcome: Sendable {
        let value = Mutex<JournalOutcome?>(nil)
    }

    private static func clockMs() -> Int64 {
        var wall = timespec()
        clock_gettime(CLOCK_REALTIME, &wall)
        return Int64(wall.tv_sec) * 1_000 + Int64(wall.tv_nsec / 1_000_000) - Int64(MonotonicClock.nowNs() / 1_000_000)
    }
}
