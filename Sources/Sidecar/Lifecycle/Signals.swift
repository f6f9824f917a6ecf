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

    /// Waits for the next one.
    mutating func next() -> Int32 {
        var number: Int32 = 0
        while sigwait(&set, &number) != 0 {}
        return number
    }

    static func name(_ number: Int32) -> String { number == SIGINT ? "SIGINT" : "SIGTERM" }
}
