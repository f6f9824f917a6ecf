import Glibc

/// ControlWorker — a thread of SCHED_IDLE class that does what the loop must not: resolve names, wake the concurrency
/// pool. (A thread of the pool inherits its class from whoever wakes the pool first, so that must never be the loop.)
final class ControlWorker: Sendable {
    private let inbox = Inbox<Void>()
    private let wakeUps: Semaphore

    /// `isUrgent`: of ordinary class, for what is short and must come to pass while the processor is busy.
    init(name: String, isUrgent: Bool = false) {
        wakeUps = Semaphore()
        let inbox = inbox
        let wakeUps = wakeUps
        ControlThread.start(name: name) {
            if !isUrgent { ControlThread.enterIdleClass() }
            while true {
                wakeUps.wait()
                inbox.takeAll { $0(()) }
            }
        }
    }

    /// Any thread; never waits.
    func run(_ job: @escaping @Sendable () -> Void) {
        if inbox.push({ job() }) { wakeUps.signal() }
    }
}

/// A POSIX semaphore: signalling takes no lock.
final class Semaphore: @unchecked Sendable {
    private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

    init() { sem_init(semaphore, 0, 0) }

    deinit {
        sem_destroy(semaphore)
        semaphore.deallocate()
    }

    func signal() { sem_post(semaphore) }

    func wait() {
        while sem_wait(semaphore) != 0 {}
    }

    /// False when nothing has come in that time.
    func wait(seconds: Int) -> Bool {
        var until = timespec()
        clock_gettime(CLOCK_REALTIME, &until)
        until.tv_sec += seconds
        while sem_timedwait(semaphore, &until) != 0 {
            if errno != EINTR { return false }
        }
        return true
    }
}
