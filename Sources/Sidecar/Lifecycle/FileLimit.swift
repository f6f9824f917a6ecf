import Glibc

/// How many sockets the process may have open.
enum FileLimit {
    /// Beside clients: the pinned links of all of them, listeners, metrics, files.
    static func needed(clientsMax: UInt32) -> UInt64 { UInt64(clientsMax) * 2 + 128 }

    /// Raises the soft limit as far as the hard one lets; returns the one in force.
    static func raise(to needed: UInt64) -> UInt64 {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return needed }
        if limit.rlim_cur < needed {
            limit.rlim_cur = min(rlim_t(needed), limit.rlim_max)
            setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        }
        return UInt64(limit.rlim_cur)
    }
}
