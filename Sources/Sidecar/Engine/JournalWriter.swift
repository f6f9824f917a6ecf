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

    /// Returns when all that it was told to do is done, `whenDone` included.
    func wait() {
        let done = Semaphore()
        worker.run { done.signal() }
        done.wait()
    }

    /// Returns when it is done. The loop thread, when the loop has ended.
    @discardableResult
    func finish(_ work: JournalWork) -> JournalOutcome {
        let outcome = Mutex<JournalOutcome?>(nil)
        run(work) { done in outcome.withLock { $0 = done } }
        wait()
        return outcome.withLock { $0 } ?? JournalOutcome(work: work, failure: nil, status: status)
    }

    private static func clockMs() -> Int64 {
        var wall = timespec()
        clock_gettime(CLOCK_REALTIME, &wall)
        return Int64(wall.tv_sec) * 1_000 + Int64(wall.tv_nsec / 1_000_000) - Int64(MonotonicClock.nowNs() / 1_000_000)
    }
}
