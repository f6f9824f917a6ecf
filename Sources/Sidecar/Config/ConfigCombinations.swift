/// Settings that are right one by one but cannot be together.
enum ConfigCombinations {
    /// `failed`: keys already complained about.
    static func check(
        _ config: SidecarConfig, sources: [String: ConfigSource], failed: Set<String>
    ) -> [ConfigProblem] {
        var problems: [ConfigProblem] = []
        func refuse(_ key: String, with others: [String] = [], _ what: String, _ expected: String) {
            if failed.contains(key) || others.contains(where: failed.contains) { return }
            let source = sources[key] ?? others.compactMap { sources[$0] }.first
            problems.append(ConfigProblem(source: source, key: key, what: what, expected: expected))
        }

        if !config.enabled {
            refuse("enabled", "is false, and yet a sidecar is being started", "true, or no --sidecar")
        }
        if config.bind.isEmpty, config.unixSocket.isEmpty {
            refuse(
                "bind", with: ["unix_socket"], "is empty and there is no unix_socket: nothing would listen",
                "an address or a unix_socket")
        }
        if !config.adminSocket.isEmpty, config.adminSocket == config.unixSocket {
            refuse(
                "admin_socket", with: ["unix_socket"], "\"\(config.adminSocket)\" is also the socket for clients",
                "two different paths")
        }
        if !config.journal.isEmpty, config.journal == config.warmStart {
            refuse(
                "warm_start", with: ["journal"], "\"\(config.warmStart)\" is also the journal's directory",
                "two different paths, e.g. /var/lib/ferrite/warm")
        }
        for (key, value) in [
            ("tls_ca_cert_file", config.tls.caCertFile), ("tls_cert_file", config.tls.certFile),
            ("tls_key_file", config.tls.keyFile), ("tls_server_name", config.tls.serverName),
        ] where !value.isEmpty && !config.upstream.isTLS {
            refuse(
                key, with: ["upstream"], "is for an upstream by TLS only",
                "upstream = \"rediss://HOST:PORT\", or no \(key)")
        }
        if config.tls.certFile.isEmpty != config.tls.keyFile.isEmpty {
            let (given, missing) =
                config.tls.keyFile.isEmpty ? ("tls_cert_file", "tls_key_file") : ("tls_key_file", "tls_cert_file")
            refuse(given, with: [missing], "is of no use without \(missing)", "both or none of the two")
        }
        let bound = config.bind.compactMap { ListenAddress($0)?.address }
        if Set(bound.map(\.text)).count < bound.count {
            refuse("bind", "names an address twice", "each address once")
        } else if let all = bound.first(where: \.isWildcard),
            let one = bound.first(where: { $0 != all && $0.family == all.family })
        {
            refuse("bind", "names \(one.text) beside \(all.text), which is all of them", "one of the two")
        }
        if config.metrics.enabled, !config.bind.isEmpty, config.port != 0, config.port == config.metrics.port {
            refuse(
                "metrics.port", with: ["port"], "\(config.metrics.port) is also the port for clients",
                "two different ports, e.g. 6379 and 9091")
        }
        if !config.trackingPrefixes.isEmpty, config.tracking != .broadcast {
            refuse(
                "tracking_prefixes", with: ["tracking"], "is for tracking = \"broadcast\" only",
                "tracking = \"broadcast\", or no tracking_prefixes")
        }
        if config.freshPort != 0, config.bind.isEmpty {
            refuse(
                "fresh_port", with: ["bind"], "\(config.freshPort) has no address to listen on", "an address in bind")
        }
        if config.freshPort != 0, !config.bind.isEmpty {
            if config.freshPort == config.port {
                refuse(
                    "fresh_port", with: ["port"], "\(config.freshPort) is also the port for clients",
                    "two different ports, e.g. 6379 and 6380")
            } else if config.metrics.enabled, config.freshPort == config.metrics.port {
                refuse(
                    "fresh_port", with: ["metrics.port"], "\(config.freshPort) is also the port of the metrics page",
                    "two different ports, e.g. 6380 and 9091")
            }
        }
        if !config.password.isEmpty, !config.passwordFile.isEmpty {
            refuse("password_file", with: ["password"], "is given together with password", "one of the two")
        }
        if !config.username.isEmpty, config.password.isEmpty, config.passwordFile.isEmpty {
            refuse(
                "username", with: ["password", "password_file"], "is given without a password",
                "a password or password_file as well")
        }
        let isEverywhere = config.metrics.bind == SidecarConfig.Metrics.everywhere
        let page = [isEverywhere ? "::" : config.metrics.bind].compactMap { NumericAddress($0) }
        if isHere(config.upstream, bound, config.port) {
            refuse(
                "upstream", with: ["port", "bind"], "\(config.upstream) is where this sidecar itself would listen",
                "the central server, or another port for the sidecar, e.g. --port 6380")
        } else if isHere(config.upstream, bound, config.freshPort) {
            refuse(
                "upstream", with: ["fresh_port", "bind"],
                "\(config.upstream) is where this sidecar itself would listen with fresh_port",
                "the central server, or another fresh_port")
        } else if config.metrics.enabled, isHere(config.upstream, page, config.metrics.port) {
            refuse(
                "upstream", with: ["metrics.port", "metrics.bind"],
                "\(config.upstream) is where this sidecar's metrics page would listen",
                "the central server, or another port for the metrics page, e.g. --metrics-port 9092")
        }
        if config.mayWriteBehind, config.writeBehind.memory > config.localMemory / 4 {
            refuse(
                "write_behind.memory", with: ["local_memory"],
                "\(ByteSize.show(config.writeBehind.memory)) is more than a quarter of local_memory, \(ByteSize.show(config.localMemory))",
                "at most \(ByteSize.show(config.localMemory / 4))")
        }
        if config.linkTimeoutMs < config.readTimeoutMs {
            refuse(
                "link_timeout", with: ["read_timeout"],
                "\(TimeSpan.show(config.linkTimeoutMs)) is shorter than read_timeout, \(TimeSpan.show(config.readTimeoutMs))",
                "a link_timeout of at least read_timeout")
        }
        return problems
    }

    /// Whether an upstream is a listener of this process, as far as that can be told without asking the resolver.
    private static func isHere(_ upstream: UpstreamAddress, _ bound: [NumericAddress], _ port: UInt16) -> Bool {
        guard !upstream.host.isEmpty, port != 0, upstream.port == port else { return false }
        let address = NumericAddress(upstream.host)
        let isLocalhost = upstream.host.lowercased() == "localhost"
        return bound.contains { listener in
            if listener == address { return true }
            if isLocalhost, ["127.0.0.1", "::1"].contains(listener.text) { return true }
            return listener.isWildcard && (isLocalhost || address?.isLoopback == true)
        }
    }
}
