/// FlowPolicy — what the configuration means to the flow, in the units it counts in.
struct FlowPolicy: Sendable {
    /// "host:port", for errors and logs.
    var upstream: String
    /// The upstream's socket address when it is given as a number: then nothing has to be resolved.
    var numericAddress: [UInt8]?
    var credentials: Credentials
    var mode: String
    var connectTimeoutNs: UInt64
    /// From LINK_UP to the last answer of the handshake.
    var handshakeTimeoutNs: UInt64
    var readTimeoutNs: UInt64
    var linkTimeoutNs: UInt64
    var drainTimeoutNs: UInt64
    var ttlDefaultMs: UInt64
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
        numericAddress = Resolver.numeric(config.upstream)
        credentials = Credentials(username: config.username, password: config.password)
        mode = SidecarConfig.Mode.readThrough.rawValue
        connectTimeoutNs = Self.nanoseconds(config.connectTimeoutMs)
        handshakeTimeoutNs = max(connectTimeoutNs, 500_000_000)
        readTimeoutNs = Self.nanoseconds(config.readTimeoutMs)
        linkTimeoutNs = Self.nanoseconds(config.linkTimeoutMs)
        drainTimeoutNs = Self.nanoseconds(config.drainTimeoutMs)
        ttlDefaultMs = config.ttlDefaultMs
        fence = config.fence
        clientsMax = Int(config.maxClients)
        self.seed = seed
        self.networkName = networkName
        self.networkReason = networkReason
    }

    /* A day is for ever here, and sums of deadlines must not overflow. */
    private static func nanoseconds(_ milliseconds: UInt64) -> UInt64 { min(milliseconds, 86_400_000) * 1_000_000 }
}
