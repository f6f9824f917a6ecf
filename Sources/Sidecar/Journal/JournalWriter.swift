import Glibc
import Synchronization

/// What the flow wants of the journal's thread; one thing at a time.
enum JournalWork: @unchecked Sendable {
    /// The bytes are the engine's, which keeps them until it hears that they are written.
    case write(UnsafeRawBufferPointer, oldest: UInt64, next: UInt64)
    case sync
    /// It tells of nothing any more.
    case clear
    /// Whether it can be written to again.
    case reopen
}

/// What came of it.
struct JournalOutcome: Sendable {
    var work: JournalWork
    var failure: JournalFailure?
    var status: JournalStatus
}

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

extension Journal {
    func perform(_ work: JournalWork) -> JournalOutcome {
        var failure: JournalFailure?
        do throws(JournalFailure) {
            switch work {
            case .write(let records, let oldest, let next): try append(records, oldest: oldest, next: next)
            case .sync: try sync()
            case .clear: try clear()
            case .reopen: try reopen()
            }
        } catch {
            failure = error
            noteFailure(of: work)
        }
        return JournalOutcome(work: work, failure: failure, status: status)
    }

    /// `clockMs`: as above.
    func restore(to orders: some Orders, _ clockMs: Int64) throws(JournalFailure) -> [FlowNotice] {
        guard let remains else { return [] }
        var notices: [FlowNotice] = []
        if remains.tornBytes > 0 { notices.append(.journalTorn(bytes: remains.tornBytes)) }
        for path in remains.damaged { notices.append(.journalDamaged(path: keepDamaged(path))) }
        orders.journalOn(next: remains.next)
        try remains.forEach { write throws(JournalFailure) in
            let expireAtMs = write.expireAtMs.map { UInt64(clamping: $0 - clockMs) } ?? JournalRecord.never
            if orders.restoreWrite(place: write.place, write.key, write.value, expireAtMs: expireAtMs) { return }
            throw JournalFailure(
                "journal: its \(remains.count) writes do not fit in write_behind.memory; give it what it had when they were acknowledged, until they have been sent"
            )
        }
        if remains.count > 0 { notices.append(.journalRestored(writes: remains.count)) }
        noteRestored(remains.count)
        return notices
    }
}
