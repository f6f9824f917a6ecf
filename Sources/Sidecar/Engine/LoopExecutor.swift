import Glibc
import Synchronization

/// LoopExecutor — runs the control plane's jobs on the loop thread, between turns, so that loop state is read and
/// changed without a lock.
///
/// Not a Swift `SerialExecutor`: the caller of an actor on the loop would be resumed by the loop itself, which would
/// wake the concurrency pool from the loop's thread, and the pool's threads would inherit its scheduling class. Here
/// the loop hands the result to a control thread, which resumes the caller.
final class LoopExecutor: Sendable {
    private let jobs = Inbox<Loop>()
    private let isClosed = Atomic<Bool>(false)
    /* Threads inside `enqueue`, which may still wake the engine. */
    private let entered = Atomic<Int>(0)
    private let wake: @Sendable () -> Void
    let control: ControlWorker

    init(control: ControlWorker, wake: @escaping @Sendable () -> Void) {
        self.control = control
        self.wake = wake
    }

    /// Any thread. A job that comes after the loop has ended is not run, and false is returned.
    @discardableResult
    func enqueue(_ job: @escaping @Sendable (Loop) -> Void) -> Bool {
        entered.add(1, ordering: .sequentiallyConsistent)
        defer { entered.subtract(1, ordering: .sequentiallyConsistent) }
        guard !isClosed.load(ordering: .sequentiallyConsistent) else { return false }
        if jobs.push(job) { wake() }
        return true
    }

    @inline(__always)
    var isIdle: Bool { jobs.isEmpty }

    /// The loop thread.
    func runJobs(_ loop: Loop) {
        jobs.takeAll { $0(loop) }
    }

    /// The loop thread, before the engine is destroyed: what was taken is run, no further job is taken, and nobody wakes
    /// the engine any more.
    func close(_ loop: Loop) {
        isClosed.store(true, ordering: .sequentiallyConsistent)
        while entered.load(ordering: .sequentiallyConsistent) != 0 { sched_yield() }
        runJobs(loop)
    }
}
