import Glibc

/// Threads of our own beside the loop, and their scheduling class.
///
/// Everything that is not the loop runs under SCHED_IDLE, so that on a shared core it works only when the loop sleeps:
/// hits keep their latency while metrics are rendered. A thread inherits the class of the one that makes it; the main
/// thread enters it right after the loop and the watchdog have been made and before anything else is.
enum ControlThread {
    /// sched.h shows it to _GNU_SOURCE only.
    private static let schedIdle: Int32 = 5

    /// The calling thread's class becomes SCHED_IDLE. Refused by some sandboxes: then it stays what it is.
    @discardableResult
    static func enterIdleClass() -> Bool {
        var parameters = sched_param()
        return sched_setscheduler(0, schedIdle, &parameters) == 0
    }

    /// Runs `body` on a new thread, for the rest of the process's life or until it returns.
    static func start(name: String, _ body: @escaping @Sendable () -> Void) {
        let start = Unmanaged.passRetained(Start(name: name, body: body))
        var thread = pthread_t()
        let code = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
                ControlThread.name(start.name)
                start.body()
                return nil
            }, start.toOpaque())
        guard code == 0 else {
            start.release()
            fatalError("cannot make the thread \(name): \(String(cString: strerror(code)))")
        }
        pthread_detach(thread)
    }

    /// Names the calling thread, as ps and perf show it; at most 15 bytes. (pthread_setname_np is not to be had here.)
    static func name(_ name: String) {
        let fd = open("/proc/thread-self/comm", O_WRONLY | O_CLOEXEC)
        guard fd >= 0 else { return }
        var name = name
        name.withUTF8 { bytes in _ = write(fd, bytes.baseAddress, bytes.count) }
        close(fd)
    }

    private final class Start: Sendable {
        let name: String
        let body: @Sendable () -> Void

        init(name: String, body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }
}
