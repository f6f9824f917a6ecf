/// One row a key of the configuration. The table drives the TOML reader, the environment, `--set`, `--check-config`
/// and docs/configuration.md; the value's place in `SidecarConfig` and its default are the struct's own.
struct ConfigKey: Sendable {
    /// Below [sidecar]: "local_memory", "metrics.port".
    var name: String
    var group: Group
    /// "size", or the choices.
    var typeName: String
    /// After "expected".
    var expected: String
    /// A sentence or two.
    var help: String
    /// The option that sets it, beside `--set`.
    var flag: String?
    /// Never shown.
    var isSecret = false
    /// Its value is a key of the application: not shown over HTTP.
    var namesKey = false

    /// Reads a text (environment, flag) or a TOML value into its place. Throws the clause that says what is wrong.
    var applyText: @Sendable (String, inout SidecarConfig) throws(ConfigMistake) -> Void
    var applyTOML: @Sendable (TOMLValue, inout SidecarConfig) throws(ConfigMistake) -> Void
    /// The value in a configuration, as TOML.
    var show: @Sendable (SidecarConfig) -> String

    enum Group: String, Sendable, CaseIterable {
        case upstream = "Upstream"
        case cache = "Cache and budget"
        case listeners = "Listeners and clients"
        case writeBehind = "Write-behind"
        case metrics = "Metrics"
        case logging = "Logging"
        case prefetch = "Prefetch"
    }

    /// FERRITE_SIDECAR_METRICS_PORT.
    var environmentName: String {
        Self.environmentPrefix + String(name.map { $0 == "." ? "_" : $0 }).uppercased()
    }

    static let environmentPrefix = "FERRITE_SIDECAR_"

    /// The value when nobody gives one, as TOML.
    var defaultText: String { show(SidecarConfig()) }

    static func named(_ name: String) -> ConfigKey? { all.first { $0.name == name } }

    init<Value: Sendable>(
        _ name: String, _ path: any WritableKeyPath<SidecarConfig, Value> & Sendable, _ type: ConfigType<Value>,
        _ group: Group, flag: String? = nil, isSecret: Bool = false, namesKey: Bool = false, _ help: String
    ) {
        self.name = name
        self.group = group
        typeName = type.name
        expected = type.expected
        self.help = help
        self.flag = flag
        self.isSecret = isSecret
        self.namesKey = namesKey
        applyText = { text, config throws(ConfigMistake) in
            do throws(ConfigType<Value>.Mistake) {
                config[keyPath: path] = try type.fromText(text)
            } catch {
                throw ConfigMistake(error)
            }
        }
        applyTOML = { value, config throws(ConfigMistake) in
            do throws(ConfigType<Value>.Mistake) {
                config[keyPath: path] = try type.fromTOML(value)
            } catch {
                throw ConfigMistake(error)
            }
        }
        show = { type.show($0[keyPath: path]) }
    }
}

struct ConfigMistake: Error {
    /// A clause: `"128" needs a unit`.
    var what: String
    /// Of the file, where that is another than the key's own.
    var line: Int?
    /// What else is wrong with the same key.
    var others: [ConfigMistake] = []

    init<Value>(_ mistake: ConfigType<Value>.Mistake) {
        what = mistake.what
        line = mistake.line
        others = mistake.others.map { ConfigMistake($0) }
    }
}

extension ConfigKey {
    private static let hour: UInt64 = 3_600_000
    private static let day: UInt64 = 24 * hour

    /// The smallest budget that the fixed parts fit in.
    static let localMemoryMin: UInt64 = 32 << 20
    /// 1 TiB: beyond any node; keeps sums far from overflow.
    static let localMemoryMax: UInt64 = 1 << 40

    static let all: [ConfigKey] = [
        ConfigKey(
            "enabled", \.enabled, .boolean, .upstream,
            "Written for the injector, which reads the same file: with false no sidecar is injected. A sidecar started with false refuses to run."
        ),
        ConfigKey(
            "upstream", \.upstream, .upstream, .upstream, flag: "--upstream",
            "The central server; rediss:// for TLS. A name is resolved again at every connect. Required."),
        ConfigKey(
            "mode", \.mode, .choice, .upstream,
            "How writes travel. read-through: to the upstream; the local copy goes. write-through: the same, and what the upstream has behind the write is fetched at once and becomes the copy. write-behind: SET (with EX or PX at most), SETEX, PSETEX and MSET are acknowledged at once, read back from here, and sent to the upstream right behind; all else as write-through."
        ),
        ConfigKey(
            "username", \.username, .text(expected: "a user of the upstream's ACL, e.g. \"app\""), .upstream,
            "User for AUTH at the upstream. Empty: the default user. Needs a password."),
        ConfigKey(
            "password", \.password, .secret, .upstream, isSecret: true,
            "Password for AUTH at the upstream. Empty: no AUTH. Prefer password_file, or the environment from a Secret."
        ),
        ConfigKey(
            "password_file", \.passwordFile,
            .text(name: "path", expected: "the path of a readable file, e.g. \"/var/run/secrets/redis\""),
            .upstream, "File that holds the password; line ends at its end are dropped. Not together with password."),
        ConfigKey(
            "tls_ca_cert_file", \.tls.caCertFile,
            .text(name: "path", expected: "the path of a file in PEM, e.g. \"/etc/ferrite/tls/ca.crt\""),
            .upstream,
            "With a rediss:// upstream: the authorities by which its certificate must be signed, in PEM; a certificate that signed itself is its own. Empty: those of the system. This and the two below are read again when they change, for connections to come."
        ),
        ConfigKey(
            "tls_cert_file", \.tls.certFile,
            .text(name: "path", expected: "the path of a file in PEM, e.g. \"/etc/ferrite/tls/tls.crt\""),
            .upstream,
            "With a rediss:// upstream: the certificate that the sidecar shows it, in PEM, and behind it those that lead to an authority. Needs tls_key_file. Empty: none."
        ),
        ConfigKey(
            "tls_key_file", \.tls.keyFile,
            .text(name: "path", expected: "the path of a file in PEM, e.g. \"/etc/ferrite/tls/tls.key\""),
            .upstream,
            "The private key of tls_cert_file, in PEM, without a passphrase."),
        ConfigKey(
            "tls_server_name", \.tls.serverName,
            .text(
                expected: "a host's name or a numeric address, e.g. \"redis.example.org\"", check: mistakeInServerName),
            .upstream,
            "Whom the upstream's certificate must name, and what is told it as SNI (a name only). Empty: the host of upstream."
        ),
        ConfigKey(
            "tls_min_version", \.tls.minVersion, .choice, .upstream, "The oldest TLS that is spoken with the upstream."),
        ConfigKey(
            "connect_timeout", \.connectTimeoutMs, .duration(1...60_000, example: "100ms"), .upstream,
            "How long a connection to the upstream may take to be made. Its handshake behind that may take as long again, and half a second in any case."
        ),
        ConfigKey(
            "read_timeout", \.readTimeoutMs, .duration(1...60_000, example: "50ms"), .upstream,
            "How long a cacheable read (GET, MGET) waits for the upstream before its client gets an error; while a large reply is arriving, for its next part. Writes and all other commands wait for as long as their link lives."
        ),
        ConfigKey(
            "link_timeout", \.linkTimeoutMs, .duration(1_000...hour, example: "5s"), .upstream,
            "A link on which the upstream has been silent for this long while it owed an answer to a heartbeat is closed and made again."
        ),
        ConfigKey(
            "tracking", \.tracking, .choice, .cache,
            "How changes made elsewhere are heard of. auto: the upstream announces those of what is kept here (CLIENT TRACKING, OPTIN) or, if it cannot, a copy lives for its ttl. optin: the same, and what the upstream cannot announce is not kept. broadcast: the upstream announces every change under tracking_prefixes to every sidecar (BCAST), which costs it no memory, and is for few writes; what has another prefix is not kept. off: by ttl alone."
        ),
        ConfigKey(
            "tracking_prefixes", \.trackingPrefixes,
            .list(name: "list of prefixes", expected: "a list of prefixes of keys, e.g. [\"user:\", \"config:\"]"),
            .cache,
            "With tracking = \"broadcast\": beginnings of the keys that are kept. One that begins with another is left out. Empty: all keys."
        ),
        ConfigKey(
            "audit", \.audit, .share(example: 0.0001), .cache,
            "A running proof: behind this share of hits the key is read again at the upstream, and ferrite_sidecar_audit_total tells whether it was the same, a change was being announced just then, or the answer was stale. Costs a fetch each. 0: none."
        ),
        ConfigKey(
            "fence", \.fence, .boolean, .upstream,
            "Deliver what comes by another link than the tracked one (pub/sub messages, replies of EXEC, of blocking commands and of scripts) only when every change that the upstream announced before has been applied, at the price of a PING. Off: such a client may read an older value from the cache for some milliseconds."
        ),
        ConfigKey(
            "control_key", \.controlKey,
            .text(name: "key", expected: "a key at the upstream, e.g. \"ferrite:control\""), .upstream, namesKey: true,
            "A key at the upstream by which all sidecars are steered at once, where changes are tracked: its value bypass makes them serve nothing from their caches until it is another or gone, and each time it is set to flush they empty them. Empty: none."
        ),
        ConfigKey(
            "allow_admin", \.allowAdmin, .boolean, .upstream,
            "Pass SHUTDOWN, REPLICAOF, FAILOVER, DEBUG, CONFIG SET and other commands that change the server itself. Refused by default: a preStop hook's `redis-cli shutdown` must not stop the central server."
        ),

        ConfigKey(
            "local_memory", \.localMemory, .size(localMemoryMin...localMemoryMax, example: "128mb"), .cache,
            "The budget: bounds the whole process, the kernel's socket buffers included. At least 32mb. With a container memory limit (cgroup v1 or v2) at most limit - max(16mb, 12%), and that is then the default."
        ),
        ConfigKey(
            "eviction", \.eviction, .choice, .cache,
            "Which entry goes when memory is needed: the one not used for the longest time, the one used least often, or any."
        ),
        ConfigKey(
            "ttl_default", \.ttlDefaultMs, .duration(1...30 * day, example: "5m"), .cache,
            "How long a cached value is served before it is fetched again, even when nothing announced a change. The upstream's own expiry always holds as well."
        ),

        ConfigKey(
            "serve_stale", \.serveStale, .boolean, .cache,
            "When the upstream is unreachable, or does not answer a read within read_timeout, answer with a value whose ttl is over, for stale_max more. Never one that has expired at the upstream, nor one that has been announced as changed or written since."
        ),
        ConfigKey(
            "stale_max", \.staleMaxMs, .duration(0...30 * day, example: "1h"), .cache,
            "How long past its ttl a value may be served while the upstream does not answer. It is kept for so long if memory allows, and goes first when it does not."
        ),
        ConfigKey(
            "rules", \.rules, .rules, .cache,
            "What holds for keys by their names: [[sidecar.rules]] with a pattern as KEYS takes it and any of mode, ttl, cache (false: never kept) and stale (in place of stale_max). The first that matches holds. In the environment a list: [{pattern = \"user:*\", ttl = \"60s\"}]."
        ),

        ConfigKey(
            "bind", \.bind,
            .list(
                name: "addresses",
                expected: "one or several numeric addresses, e.g. \"127.0.0.1\" or [\"127.0.0.1\", \"-::1\"]",
                check: mistakeInListenAddress),
            .listeners, flag: "--bind",
            "Addresses to listen on: a list, or a text with blanks or commas between them. One with - in front is left out where the machine does not have it, as in Redis. An empty list with unix_socket set: no TCP."
        ),
        ConfigKey(
            "port", \.port, .number(0...65535, example: 6379), .listeners, flag: "--port",
            "TCP port for clients. 0: the kernel chooses, and the start line tells."),
        ConfigKey(
            "fresh_port", \.freshPort, .number(0...65535, example: 6380), .listeners,
            "A second TCP port for the one call that must be exact: the same commands, answers and identity, and never an answer from the cache; a key with a queued write is read when that is upstream. A read waits as any other command does, not for read_timeout. 0: none."
        ),
        ConfigKey(
            "unix_socket", \.unixSocket,
            .text(
                name: "path", expected: "an absolute path of at most 107 bytes, e.g. \"/run/ferrite/sidecar.sock\"",
                check: mistakeInSocketPath),
            .listeners, flag: "--unix-socket",
            "Also listen on this Unix socket, which costs less CPU than TCP. Empty: none. A stale file is replaced."),
        ConfigKey(
            "admin_socket", \.adminSocket,
            .text(
                name: "path", expected: "an absolute path of at most 107 bytes, e.g. \"/run/ferrite/admin.sock\"",
                check: mistakeInSocketPath),
            .listeners,
            "Unix socket by which ferritectl steers the sidecar (flush, prefetch, bypass, drain, dead-letters), readable by its owner alone. Empty: none. A stale file is replaced."
        ),
        ConfigKey(
            "network", \.network, .choice, .listeners, flag: "--network",
            "The network engine. auto tries io_uring by a real operation and falls back to epoll; the log, INFO, /stats and ferritectl say which it is and why."
        ),
        ConfigKey(
            "max_clients", \.maxClients, .number(1...100_000, example: 1_000), .listeners,
            "Client connections at one time; further ones get an error and are closed. Fewer if the budget cannot hold them: some 450 at 32mb."
        ),
        ConfigKey(
            "idle_timeout", \.idleTimeoutMs, .duration(0...30 * day, example: "5m"), .listeners,
            "Close clients that have sent nothing for this long, but for those that wait for an answer or have a link of their own (subscribers, blocking calls). 0: never."
        ),
        ConfigKey(
            "drain_timeout", \.drainTimeoutMs, .duration(0...hour, example: "5s"), .listeners,
            "After SIGTERM clients are served until none is connected or this time has passed; then the sidecar exits with 0."
        ),

        ConfigKey(
            "journal", \.journal,
            .text(
                name: "path", expected: "an absolute path of a directory, e.g. \"/var/lib/ferrite/journal\"",
                check: { $0.isEmpty || $0.hasPrefix("/") ? nil : "\"\($0)\" is not absolute" }),
            .writeBehind,
            "With write-behind: directory of the journal, made if it is not there; of this sidecar alone. A write is acknowledged when it is in the journal, and what was not carried out when the process ended is sent by the next, which may overwrite what others have written meanwhile. When it cannot be written (disk full) writes are acknowledged once the upstream has carried them out, until it can. Empty: none, and with the process goes what it has acknowledged and not sent."
        ),
        ConfigKey(
            "journal_fsync", \.journalFsync, .choice, .writeBehind,
            "When the journal is brought to the disk; the words are those of Redis' appendfsync. always: before a write is acknowledged, many at a time; it survives the node. everysec: once a second, and at each MiB; it survives the process and the container, and a crash of the node loses a second. Other than in Redis acknowledgements wait for as long as that takes, be it on a slow disk a second. no: when the kernel likes, and at each MiB, for which they wait as well."
        ),
        ConfigKey(
            "write_behind.memory", \.writeBehind.memory, .size((256 << 10)...localMemoryMax, example: "8mb"),
            .writeBehind,
            "With write-behind: how much of local_memory acknowledged writes that are not yet upstream may take, at most a quarter. When it is full, who writes waits; while the upstream is unreachable, he gets its error."
        ),
        ConfigKey(
            "write_behind.retry_for", \.writeBehind.retryMs, .duration(0...day, example: "1m"), .writeBehind,
            "How long a write that the upstream refuses for now (OOM, READONLY, LOADING, MISCONF, NOAUTH and their like) is tried again before it is given up: counted, logged without its value, and gone. While the upstream is not there at all it waits for as long as that takes."
        ),

        ConfigKey(
            "metrics.enabled", \.metrics.enabled, .boolean, .metrics,
            "Serve /metrics, /healthz, /readyz and /stats over HTTP."),
        ConfigKey(
            "metrics.bind", \.metrics.bind,
            .text(
                name: "address", expected: "one numeric address, or \"*\" for all",
                check: { $0 == SidecarConfig.Metrics.everywhere ? nil : mistakeInAddress($0) }),
            .metrics,
            "Address of the metrics page; \"*\" is every one, of IPv4 and IPv6: the default, because Prometheus comes from outside the pod; the page shows numbers and settings, never the data's keys, values or secrets; settings may spell keys (patterns of rules and prefetch, tracking_prefixes)."
        ),
        ConfigKey(
            "metrics.port", \.metrics.port, .number(0...65535, example: 9091), .metrics, flag: "--metrics-port",
            "Port of the metrics page. 0: the kernel chooses, and the log tells."),

        ConfigKey(
            "log_level", \.logLevel, .choice, .logging, "The least important messages that are written."),
        ConfigKey(
            "log_format", \.logFormat, .choice, .logging,
            "pretty for people, json for log collectors: one object a line. Both go to standard error."),
        ConfigKey(
            "trace_key", \.traceKey,
            .text(name: "key", expected: "a key as the application spells it, e.g. \"user:1\""),
            .logging, namesKey: true,
            "Writes the life of one key to the log, at whatever level: asked for, fetched, kept, announced as changed, dropped and why. To see where an answer came from; a line each, so not for a key of thousands of requests a second that miss."
        ),

        ConfigKey(
            "warm_start", \.warmStart,
            .text(
                name: "path", expected: "an absolute path of a file, e.g. \"/var/lib/ferrite/warm\"",
                check: { $0.isEmpty || $0.hasPrefix("/") ? nil : "\"\($0)\" is not absolute" }),
            .prefetch,
            "File to which the names of the 10,000 hottest keys are written each minute and at the end, and whose keys are fetched first at the next start, at prefetch's pace; those that it has not come to stay behind them. No values are written. A file that something else has written is left as it is. Empty: none."
        ),
        ConfigKey(
            "prefetch.enabled", \.prefetch.enabled, .boolean, .prefetch,
            "Fetch keys by pattern before anybody asks for them: at the start, and when everything has been flushed."),
        ConfigKey(
            "prefetch.patterns", \.prefetch.patterns,
            .list(name: "list of patterns", expected: "a list of key patterns, e.g. [\"session:*\", \"config:*\"]"),
            .prefetch,
            "Keys to fetch ahead, as SCAN's MATCH takes them. Only strings."),
        ConfigKey(
            "prefetch.scan_rate", \.prefetch.scansPerSecond, .number(1...10_000, example: 100), .prefetch,
            "SCAN calls a second at most, each of some hundred keys, whether they match or not: the keys of the upstream's database / (100 × this) are the seconds that it takes to see them all."
        ),
        ConfigKey(
            "prefetch.fill_rate", \.prefetch.fillsPerSecond, .number(1...100_000, example: 2_000), .prefetch,
            "Keys fetched a second at most."),
        ConfigKey(
            "prefetch.share", \.prefetch.share, .number(1...90, example: 50), .prefetch,
            "Percent of local_memory: it ends when the cache holds so much, and never takes the place of what clients have asked for."
        ),
        ConfigKey(
            "prefetch.jitter", \.prefetch.jitterMs, .duration(0...hour, example: "5s"), .prefetch,
            "It begins after a random time of up to this, so that many pods do not begin at once."),
        ConfigKey(
            "prefetch.timeout", \.prefetch.timeoutMs, .duration(100...day, example: "30s"), .prefetch,
            "It ends after this, whatever is left: with the default scan_rate 300,000 keys have been looked at by then."
        ),
        ConfigKey(
            "prefetch.ready_after_prefetch", \.prefetch.readyAfter, .boolean, .prefetch,
            "/readyz is 503 until the first prefetch has ended, for at most 10 s after the start: whatever becomes of it, the pod is ready then."
        ),
    ]

    private static let mistakeInAddress: @Sendable (String) -> String? = { text in
        if NumericAddress(text) != nil { return nil }
        return text == "localhost"
            ? "\"localhost\" is a name; write 127.0.0.1 or ::1" : "\"\(text)\" is no numeric IPv4 or IPv6 address"
    }

    private static let mistakeInListenAddress: @Sendable (String) -> String? = { text in
        if ListenAddress(text) != nil { return nil }
        return ["*", "-*", "::*", "-::*"].contains(text)
            ? "all addresses are written 0.0.0.0 and ::"
            : mistakeInAddress(text.hasPrefix("-") ? String(text.dropFirst()) : text)
    }

    private static let mistakeInServerName: @Sendable (String) -> String? = { text in
        if text.isEmpty || NumericAddress(text) != nil { return nil }
        let isName = text.utf8.allSatisfy {
            switch $0 {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"):
                true
            default: false
            }
        }
        return isName && !text.hasPrefix(".") && text.utf8.count <= 253 ? nil : "\"\(text)\" is no host's name"
    }

    private static let mistakeInSocketPath: @Sendable (String) -> String? = { path in
        if path.isEmpty { return nil }
        if !path.hasPrefix("/") { return "\"\(path)\" is not absolute" }
        return path.utf8.count > 107 ? "the path has \(path.utf8.count) bytes" : nil
    }
}
