import Glibc

/// SIGTERM and SIGINT, taken by waiting for them: blocked in every thread, fetched by the main thread. No handler runs
/// in the middle of anything.
struct Signals {
    private var set = sigset_t()

    /// Blocks them for the calling thread and all it makes from now on. A write to a closed pipe becomes an error, as does
    /// one that would make a file larger than it may be.
    init() {
        sigemptyset(&set)
        sigaddset(&set, SIGTERM)
        sigaddset(&set, SIGINT)
        pthread_sigmask(SIG_BLOCK, &set, nil)
        signal(SIGPIPE, SIG_IGN)
        signal(SIGXFSZ, SIG_IGN)
    }

    struct Signal {
        var number: Int32
        /// This process sent it to itself.
        var isOwn: Bool

        var name: String { number == SIGINT ? "SIGINT" : "SIGTERM" }
    }

    /// Waits for the next one.
    mutating func next() -> Signal {
        var info = siginfo_t()
        var number: Int32 = -1
        repeat { number = sigwaitinfo(&set, &info) } while number < 0
        return Signal(number: number, isOwn: info.si_code == SI_USER && info._sifields._kill.si_pid == getpid())
    }

    /// Waits for the next one from outside.
    mutating func nextForeign() -> Signal {
        while true {
            let signal = next()
            if !signal.isOwn { return signal }
        }
    }
}
