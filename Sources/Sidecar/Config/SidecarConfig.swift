/// The effective configuration: checked, complete, and a pure value. Its keys, defaults and help are in `ConfigKey`.
struct SidecarConfig: Sendable, Equatable {
    enum Mode: String, Sendable, CaseIterable {
        case readThrough = "read-through"
        case writeThrough = "write-through"
        case writeBehind = "write-behind"
    }

    enum Eviction: String, Sendable, CaseIterable {
        case lru, lfu, random
    }

    enum Network: String, Sendable, CaseIterable {
        case auto
        case ioUring = "io_uring"
        case epoll
    }

    enum LogLevel: String, Sendable, CaseIterable {
        case trace, debug, info, notice, warning, error, critical
    }

    enum LogFormat: String, Sendable, CaseIterable {
        case pretty, json
    }

    /// As Redis' appendfsync.
    enum JournalFsync: String, Sendable, CaseIterable {
        case always, everysec, no
    }

    enum Tracking: String, Sendable, CaseIterable {
        case auto, optin, broadcast, off
    }

    struct Prefetch: Sendable, Equatable {
        var enabled = false
        /// Glob patterns of keys.
        var patterns: [String] = []
        var scansPerSecond: UInt32 = 100
        var fillsPerSecond: UInt32 = 2_000
        /// Percent of local_memory.
        var share: UInt32 = 50
        var jitterMs: UInt64 = 5_000
        var timeoutMs: UInt64 = 30_000
        /// Not ready before it has ended, or ten seconds have passed.
        var readyAfter = false
    }

    struct WriteBehind: Sendable, Equatable {
        /// Bytes of acknowledged writes that are not carried out yet, at most.
        var memory: UInt64 = 8 << 20
        /// How long a write that the upstream refuses for now is tried again.
        var retryMs: UInt64 = 60_000
    }

    /// For an upstream by rediss://. Paths of PEM files; empty: the system's authorities, no certificate of ours.
    struct UpstreamTLS: Sendable, Equatable {
        enum Version: String, Sendable, CaseIterable {
            case v12 = "1.2"
            case v13 = "1.3"
        }

        var caCertFile = ""
        var certFile = ""
        var keyFile = ""
        /// Empty: the upstream's host.
        var serverName = ""
        var minVersion = Version.v12
    }

    struct Metrics: Sendable, Equatable {
        var enabled = true
        /// Every address of both families.
        static let everywhere = "*"

        /// Numeric address, or `everywhere`.
        var bind = everywhere
        /// 0: the kernel's choice.
        var port: UInt16 = 9091
    }

    /// There may be acknowledged writes to send: of this process, or in the journal.
    var mayWriteBehind: Bool { usesWriteBehind || !journal.isEmpty }
    var usesWriteBehind: Bool { mode == .writeBehind || rules.contains { $0.mode == .writeBehind } }

    /// False is refused at start: the injector's word, not ours.
    var enabled = true
    var mode = Mode.readThrough
    var upstream = UpstreamAddress(host: "", port: 6379)
    /// The budget in bytes, already clamped to what the cgroup allows.
    var localMemory: UInt64 = 128 << 20
    var eviction = Eviction.lru
    /// How long a filled value is fresh.
    var ttlDefaultMs: UInt64 = 300_000
    var tracking = Tracking.auto
    /// With broadcast: beginnings of the keys that are kept; empty: of all.
    var trackingPrefixes: [String] = []
    var serveStale = true
    /// How long past its ttl.
    var staleMaxMs: UInt64 = 3_600_000
    /// In their order.
    var rules: [KeyRule] = []
    var connectTimeoutMs: UInt64 = 100
    /// For cacheable reads.
    var readTimeoutMs: UInt64 = 50
    /// How long a silent link lives.
    var linkTimeoutMs: UInt64 = 5_000
    /// 0: none.
    var idleTimeoutMs: UInt64 = 0
    var drainTimeoutMs: UInt64 = 5_000

    /// Each a `ListenAddress`. Empty when only the Unix socket is wanted.
    var bind: [String] = ["127.0.0.1", "-::1"]
    /// 0: the kernel's choice.
    var port: UInt16 = 6379
    /// Its clients are never answered from the cache; 0: there is none.
    var freshPort: UInt16 = 0
    /// Empty: none.
    var unixSocket = ""
    var network = Network.auto
    var maxClients: UInt32 = 1_000

    /// The upstream's ACL user; empty: the default user.
    var username = ""
    /// Empty: no AUTH. From `password`, or already read from `passwordFile`.
    var password = Secret("")
    /// Empty: none.
    var passwordFile = ""
    var tls = UpstreamTLS()
    /// The fleet's switch; empty: none.
    var controlKey = "ferrite:control"
    /// Unix socket of the admin pages; empty: none.
    var adminSocket = ""
    var fence = true
    /// Share of hits that are compared with the upstream.
    var audit = 0.0
    var allowAdmin = false

    var logLevel = LogLevel.info
    var traceKey = ""
    var logFormat = LogFormat.pretty

    /// File of the hottest keys' names; empty: none.
    var warmStart = ""
    var writeBehind = WriteBehind()
    /// Directory of the journal; empty: none.
    var journal = ""
    var journalFsync = JournalFsync.everysec
    var prefetch = Prefetch()
    var metrics = Metrics()
}
