/// FlowPolicy — what the configuration means to the flow, in the units it counts in.
struct FlowPolicy: Sendable {
    /// "host:port" or "rediss://host:port", for errors and logs.
    var upstream: String
    var usesTLS: Bool
    /// The upstream's socket address when it is given as a number: then nothing has to be resolved.
    var numericAddress: [UInt8]?
    var credentials: Credentials
    var mode: String
    var connectTimeoutNs: UInt64
    /// From LINK_UP to the last answer of the handshake.
    var handshakeTimeoutNs: UInt64
    var readTimeoutNs: UInt64
    var linkTimeoutNs: UInt64
    /// How long a link that its client has given back is kept for it.
    var pinRestNs: UInt64 = 30_000_000_000
    var drainTimeoutNs: UInt64
    /// Some keys' writes are acknowledged before they are carried out.
    var writesBehind: Bool
    /// nil: there is no journal.
    var journalFsync: SidecarConfig.JournalFsync?
    /// How long one that is refused for now is tried again.
    var writeRetryNs: UInt64
    var prefetch: Prefetch.Policy
    /// Empty: none.
    var controlKey: [UInt8]
    /// What holds for which keys; the last for all that no other matches.
    var rules: [FetchRule]
    var tracking: LinkMachine.Tracking
    /// What nothing announces is kept for its ttl; else it is not kept.
    var keepsUntracked: Bool
    /// One hit in so many is compared with the upstream; 0: none.
    var auditEvery: UInt64
    /// What comes by another link than the tracked one waits for a fence (rule 3).
    var fence: Bool
    var clientsMax: Int
    /// Of the jitter.
    var seed: UInt64
    /// Told in INFO: which engine it is, and why.
    var networkName: String
    var networkReason: String

    init(_ config: SidecarConfig, networkName: String, networkReason: String = "", seed: UInt64) {
        upstream = config.upstream.description
        usesTLS = config.upstream.isTLS
        numericAddress = Resolver.numeric(config.upstream)
        credentials = Credentials(username: config.username, password: config.password)
        mode = config.mode.rawValue
        connectTimeoutNs = Self.nanoseconds(config.connectTimeoutMs)
        handshakeTimeoutNs = max(connectTimeoutNs, 500_000_000)
        readTimeoutNs = Self.nanoseconds(config.readTimeoutMs)
        linkTimeoutNs = Self.nanoseconds(config.linkTimeoutMs)
        drainTimeoutNs = Self.nanoseconds(config.drainTimeoutMs)
        rules = FetchRule.all(of: config)
        controlKey = Array(config.controlKey.utf8)
        prefetch = Prefetch.Policy()
        if config.prefetch.enabled { prefetch.patterns = config.prefetch.patterns.map { Array($0.utf8) } }
        /* These hold for warm_start and for what is asked for by hand as well. */
        prefetch.scanIntervalNs = 1_000_000_000 / UInt64(config.prefetch.scansPerSecond)
        prefetch.fillsPerSecond = UInt64(config.prefetch.fillsPerSecond)
        prefetch.jitterNs = Self.nanoseconds(config.prefetch.jitterMs)
        prefetch.timeoutNs = Self.nanoseconds(config.prefetch.timeoutMs)
        writesBehind = config.mayWriteBehind
        journalFsync = config.journal.isEmpty ? nil : config.journalFsync
        writeRetryNs = Self.nanoseconds(config.writeBehind.retryMs)
        keepsUntracked = config.tracking == .auto || config.tracking == .off
        tracking =
            switch config.tracking {
            case .auto, .optin: .optIn
            case .broadcast: .broadcast(prefixes: Self.prefixes(config))
            case .off: .off
            }
        auditEvery = config.audit > 0 ? UInt64((1 / config.audit).rounded()) : 0
        fence = config.fence
        clientsMax = Int(config.maxClients)
        self.seed = seed
        self.networkName = networkName
        self.networkReason = networkReason
    }

    /// Those that no other covers, which the upstream would refuse; the control key's with them.
    private static func prefixes(_ config: SidecarConfig) -> [[UInt8]] {
        if config.trackingPrefixes.isEmpty { return [] }
        let all = (config.trackingPrefixes + [config.controlKey]).filter { !$0.isEmpty }.map { Array($0.utf8) }
        var kept: [[UInt8]] = []
        for prefix in all.sorted(by: { $0.lexicographicallyPrecedes($1) })
        where !(kept.last.map { prefix.starts(with: $0) } ?? false) {
            kept.append(prefix)
        }
        return kept
    }

    /* A day is for ever here, and sums of deadlines must not overflow. */
    private static func nanoseconds(_ milliseconds: UInt64) -> UInt64 { min(milliseconds, 86_400_000) * 1_000_000 }
}

extension LinkMachine.Tracking {
    /// All changes are announced, not only those of what was read.
    @inline(__always)
    var isBroadcast: Bool { if case .broadcast = self { true } else { false } }

    /// With broadcast: whether changes of this key are announced.
    func announces(_ key: Bytes) -> Bool {
        guard case .broadcast(let prefixes) = self else { return false }
        return prefixes.isEmpty || prefixes.contains { key.starts(with: $0) }
    }
}

/// FetchRule — a rule in the fast path's terms.
struct FetchRule: Sendable, Equatable {
    var pattern: [UInt8]
    var ttlMs: UInt64
    var staleMs: UInt64
    var caches: Bool
    /// A write is followed by a fetch of what it has left.
    var fillsBehind: Bool
    /// SET and its like are acknowledged before they are carried out.
    var writesBehind: Bool

    static func all(of config: SidecarConfig) -> [FetchRule] {
        (config.rules + [KeyRule(pattern: "*")]).map { rule in
            FetchRule(
                pattern: Array(rule.pattern.utf8), ttlMs: rule.ttlMs ?? config.ttlDefaultMs,
                staleMs: config.serveStale ? rule.staleMs ?? config.staleMaxMs : 0, caches: rule.cache ?? true,
                /* A broadcast of our own write comes behind the fetch, and would take what that has brought. */
                fillsBehind: (rule.mode ?? config.mode) != .readThrough && config.tracking != .broadcast,
                writesBehind: (rule.mode ?? config.mode) == .writeBehind)
        }
    }
}
