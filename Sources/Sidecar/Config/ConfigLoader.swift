/// From flags, environment and file to one checked configuration. Pure but for `readSecret` and a look at what
/// stands where a file is to be written.
///
///     file < environment < flags ─► one SidecarConfig ─► container limit ─► combinations ─► ResolvedConfig
///                                        └ every problem on the way is kept; any at all: nothing starts
struct ConfigLoader {
    struct Flag: Sendable, Equatable {
        /// As typed, for messages: "--port", "--set port".
        var name: String
        /// Of a `ConfigKey`, or unknown.
        var key: String
        var text: String
    }

    struct File: Sendable, Equatable {
        /// As given, for messages.
        var name: String
        var bytes: [UInt8]
    }

    var flags: [Flag] = []
    var environment: [String: String] = [:]
    var file: File?
    /// Texts of memory.max or memory.limit_in_bytes.
    var cgroupLimitTexts: [String] = []
    /// Reads a password file, at most 4 KiB.
    var readSecret: (String) throws(TextFile.Failure) -> [UInt8] = { path throws(TextFile.Failure) in
        try TextFile.bytes(path, bytesMax: 4096)
    }

    /// What is wrong with the files of upstream TLS.
    var tlsMistakes: (SidecarConfig) -> [TLSMistake] = TLSContext.mistakes

    func load() throws(ConfigError) -> ResolvedConfig {
        var state = State()
        applyFile(&state)
        state.problems.sort { ($0.source?.line ?? 0) < ($1.source?.line ?? 0) }
        applyEnvironment(&state)
        applyFlags(&state)
        let localMemoryGiven = state.sources["local_memory"].map { _ in state.config.localMemory }
        applyMemoryLimit(&state)
        state.problems += ConfigCombinations.check(state.config, sources: state.sources, failed: state.failed)
        readPasswordFile(&state)
        checkTLS(&state)
        /* It is replaced as a whole: what is no file would be gone. */
        checkPath(
            &state, "warm_start", state.config.warmStart, isWrong: TextFile.isSpecial, "is there and is no file",
            "the path of a file, which is made if it is not there, e.g. /var/lib/ferrite/warm")
        checkPath(
            &state, "journal", state.config.journal, isWrong: TextFile.isNoFolder, "is there and is no directory",
            "a directory of this sidecar alone, which is made if it is not there, e.g. /var/lib/ferrite/journal")

        let upstreamGiven = state.sources["upstream"] != nil || state.failed.contains("upstream")
        let othersWrong = !state.problems.isEmpty
        if !upstreamGiven, !state.hasUnreadableUpstream {
            state.problems.append(
                ConfigProblem(key: "upstream", what: "no upstream is given", expected: Self.upstreamRemedy))
        }
        guard state.problems.isEmpty else {
            throw ConfigError(problems: state.problems, isOnlyMissingUpstream: !upstreamGiven && !othersWrong)
        }
        return ResolvedConfig(
            config: state.config, sources: state.sources, localMemoryGiven: localMemoryGiven,
            warnings: warnings(state))
    }

    static let upstreamRemedy = "the address of a Redis server, e.g. --upstream redis.default.svc:6379"

    private struct State {
        var config = SidecarConfig()
        var sources: [String: ConfigSource] = [:]
        /// Keys that were given wrongly: no further complaint about them is of use.
        var failed: Set<String> = []
        var problems: [ConfigProblem] = []
        var warnings: [String] = []
        /// A line that is no TOML has the word in it: that it is missing would be a second, false complaint.
        var hasUnreadableUpstream = false

        mutating func apply(
            _ key: ConfigKey, from source: ConfigSource, _ read: (inout SidecarConfig) throws(ConfigMistake) -> Void
        ) {
            do throws(ConfigMistake) {
                try read(&config)
                sources[key.name] = source
            } catch {
                failed.insert(key.name)
                for mistake in [error] + error.others {
                    problems.append(
                        ConfigProblem(
                            source: source.at(line: mistake.line), key: key.name, what: mistake.what,
                            expected: key.expected))
                }
            }
        }
    }

    // MARK: the three layers

    private func applyFile(_ state: inout State) {
        guard let file else { return }
        let document = TOMLDocument(file.bytes)
        let lines = file.bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        for problem in document.problems {
            if lines.indices.contains(problem.line - 1),
                String(decoding: lines[problem.line - 1], as: UTF8.self).contains("upstream")
            {
                state.hasUnreadableUpstream = true
            }
            state.problems.append(
                ConfigProblem(
                    source: .file(name: file.name, line: problem.line), key: "", what: problem.message, expected: ""))
        }
        let strangers = document.tables.filter { !Self.isKnown(table: $0.path) }
        for (path, line) in strangers {
            let name = TOMLParser.show(path)
            if path.first == "sidecar",
                ConfigKey.named(TOMLParser.show(Array(path.dropFirst())))?.typeName == "tables"
            {
                state.problems.append(
                    ConfigProblem(
                        source: .file(name: file.name, line: line), key: "", what: "[\(name)] is one of several",
                        expected: "[[\(name)]], once for each"))
                continue
            }
            let near = NearestName.of(name, among: Self.tables.map { TOMLParser.show($0) })
            state.problems.append(
                ConfigProblem(
                    source: .file(name: file.name, line: line), key: "",
                    what: "[\(name)] is not known" + (near.map { "; did you mean [\($0)]?" } ?? ""),
                    expected: near == nil
                        ? Self.tables.map { "[\(TOMLParser.show($0))]" }.joined(separator: " or ") : ""))
        }
        for entry in document.entries {
            /* A table that is not known has been complained about once, for all its keys. */
            if strangers.contains(where: { entry.line > $0.line && entry.path.starts(with: $0.path) }) { continue }
            let source = ConfigSource.file(name: file.name, line: entry.line)
            guard entry.path.count > 1, entry.path[0] == "sidecar" else {
                state.problems.append(Self.outsideSidecar(entry.path, source))
                continue
            }
            let name = TOMLParser.show(Array(entry.path.dropFirst()))
            guard let key = ConfigKey.named(name) else {
                state.problems.append(Self.unknown(name, source))
                continue
            }
            state.apply(key, from: source) { config throws(ConfigMistake) in try key.applyTOML(entry.value, &config) }
        }
    }

    /// [sidecar] and the tables below it that have keys.
    private static let tables: [[String]] = ConfigKey.all.reduce(into: [["sidecar"]]) { tables, key in
        let table = ["sidecar"] + key.name.split(separator: ".").dropLast().map(String.init)
        if !tables.contains(table) { tables.append(table) }
    }

    private static func isKnown(table: [String]) -> Bool { tables.contains(table) }

    private func applyEnvironment(_ state: inout State) {
        for key in ConfigKey.all {
            let name = key.environmentName
            guard let text = environment[name], !text.isEmpty else { continue }
            /* Kubernetes sets FERRITE_SIDECAR_PORT=tcp://10.0.0.1:6379 for a Service called ferrite-sidecar; the upstream
               may be written so. */
            let isOfService = text.hasPrefix("tcp://") || text.hasPrefix("udp://")
            if isOfService, key.name != "upstream" { continue }
            state.apply(key, from: .environment(name: name)) { config throws(ConfigMistake) in
                try key.applyText(text, &config)
            }
        }
    }

    private func applyFlags(_ state: inout State) {
        var given: [String: Flag] = [:]
        for flag in flags {
            let name = flag.key.hasPrefix("sidecar.") ? String(flag.key.dropFirst("sidecar.".count)) : flag.key
            guard let key = ConfigKey.named(name) else {
                state.problems.append(Self.unknown(name, .flag(flag.name)))
                continue
            }
            if let before = given[name], before.text != flag.text {
                state.problems.append(
                    ConfigProblem(
                        source: .flag(flag.name), key: name,
                        what: "was given twice with different values, also by \(before.name)",
                        expected: "one of the two"))
                continue
            }
            given[name] = flag
            state.apply(key, from: .flag(flag.name)) { config throws(ConfigMistake) in
                try key.applyText(flag.text, &config)
            }
        }
    }

    private static func unknown(_ name: String, _ source: ConfigSource) -> ConfigProblem {
        let near = NearestName.of(name, among: ConfigKey.all.map(\.name))
        return ConfigProblem(
            source: source, key: name, what: "is not known" + (near.map { "; did you mean \"\($0)\"?" } ?? ""),
            expected: near == nil ? "a key of docs/configuration.md" : "")
    }

    private static func outsideSidecar(_ path: [String], _ source: ConfigSource) -> ConfigProblem {
        let name = TOMLParser.show(path)
        if path[0] == "sidecar" {
            return ConfigProblem(source: source, key: name, what: "is a table, not a key", expected: "a line [sidecar]")
        }
        if ConfigKey.named(name) != nil {
            return ConfigProblem(
                source: source, key: name, what: "stands outside [sidecar]", expected: "a line [sidecar] above it")
        }
        return ConfigProblem(
            source: source, key: name, what: "is not known: only [sidecar] is read",
            expected: NearestName.of(path[0], among: ["sidecar"]).map { "[\($0)]" } ?? "keys below [sidecar]")
    }

    // MARK: what depends on the machine

    private func applyMemoryLimit(_ state: inout State) {
        guard let limit = CgroupMemory.limit(texts: cgroupLimitTexts), !state.failed.contains("local_memory") else {
            return
        }
        let usable = CgroupMemory.usable(limit: limit)
        let reason = CgroupMemory.reason(limit: limit)
        guard usable >= ConfigKey.localMemoryMin else {
            state.problems.append(
                ConfigProblem(
                    key: "local_memory",
                    what:
                        "the container's memory limit of \(CgroupMemory.roughly(limit)) leaves \(CgroupMemory.roughly(usable)) after the 16mb kept free",
                    expected: "a memory limit of at least 48Mi"))
            return
        }
        defer { fitWriteBehind(&state) }
        guard let given = state.sources["local_memory"] else {
            state.config.localMemory = min(usable, ConfigKey.localMemoryMax)
            state.sources["local_memory"] = .memoryLimit(reason)
            return
        }
        if state.config.localMemory > usable {
            state.warnings.append(
                "local_memory \(ByteSize.show(state.config.localMemory)) (\(given)) is more than the container can hold; using \(CgroupMemory.roughly(usable)): \(reason)"
            )
            state.config.localMemory = usable
            state.sources["local_memory"] = .memoryLimit("\(given), clamped: \(reason)")
        }
    }

    /// A container's limit may change between two starts: what fitted before must not keep the next from starting.
    private func fitWriteBehind(_ state: inout State) {
        let most = state.config.localMemory / 4
        guard case .memoryLimit = state.sources["local_memory"], state.config.writeBehind.memory > most,
            let given = state.sources["write_behind.memory"]
        else { return }
        state.warnings.append(
            "write_behind.memory \(ByteSize.show(state.config.writeBehind.memory)) (\(given)) is more than a quarter of local_memory; using \(CgroupMemory.roughly(most))"
        )
        state.config.writeBehind.memory = most
    }

    private func readPasswordFile(_ state: inout State) {
        let path = state.config.passwordFile
        guard !path.isEmpty, state.config.password.isEmpty else { return }
        func refuse(_ what: String) {
            state.failed.insert("password_file")
            state.problems.append(
                ConfigProblem(
                    source: state.sources["password_file"], key: "password_file", what: what,
                    expected: "the path of a file that holds the password"))
        }
        do throws(TextFile.Failure) {
            var bytes = try readSecret(path)
            while let last = bytes.last, last == UInt8(ascii: "\n") || last == UInt8(ascii: "\r") { bytes.removeLast() }
            guard !bytes.isEmpty else { return refuse("\"\(path)\" is empty") }
            guard let text = String(validating: bytes, as: UTF8.self) else {
                return refuse("\"\(path)\" is not UTF-8 text")
            }
            state.config.password = Secret(text)
        } catch {
            refuse("\"\(path)\" cannot be read: \(error.sentence)")
        }
    }

    private func checkTLS(_ state: inout State) {
        let keys: Set = ["tls_ca_cert_file", "tls_cert_file", "tls_key_file", "tls_server_name"]
        let isSaid = state.problems.contains { keys.contains($0.key) }
        guard state.config.upstream.isTLS, !isSaid else { return }
        state.problems += tlsMistakes(state.config).map {
            ConfigProblem(source: state.sources[$0.key], key: $0.key, what: $0.what, expected: $0.expected)
        }
    }

    private func checkPath(
        _ state: inout State, _ key: String, _ path: String, isWrong: (String) -> Bool, _ what: String,
        _ expected: String
    ) {
        guard !path.isEmpty, !state.failed.contains(key), isWrong(path) else { return }
        state.problems.append(
            ConfigProblem(
                source: state.sources[key], key: key, what: "\"\(path)\" \(what)", expected: expected))
    }

    private func warnings(_ state: State) -> [String] {
        var warnings = state.warnings + misspeltVariables()
        let config = state.config
        if config.usesWriteBehind, config.journal.isEmpty {
            warnings.append(
                "write-behind acknowledges writes before the upstream has them: those of the last moments are lost when this process, the pod or the node dies; journal keeps them"
            )
        }
        if config.prefetch.enabled, config.prefetch.patterns.isEmpty, config.warmStart.isEmpty {
            warnings.append("prefetch has no patterns: nothing is fetched ahead")
        }
        if !config.prefetch.enabled, !config.prefetch.patterns.isEmpty {
            warnings.append("prefetch.patterns are given, but prefetch.enabled is false: nothing is fetched ahead")
        }
        if config.tracking == .broadcast, !config.trackingPrefixes.isEmpty {
            for pattern in config.prefetch.patterns where !Self.mayBegin(pattern, config.trackingPrefixes) {
                warnings.append(
                    "prefetch pattern \"\(pattern)\" matches nothing that begins with one of tracking_prefixes: what is fetched by it is not kept"
                )
            }
        }
        if config.prefetch.enabled {
            for pattern in config.prefetch.patterns where Self.isNeverKept(pattern, config.rules) {
                warnings.append(
                    "prefetch pattern \"\(pattern)\": a rule says cache = false for all of its keys: none is fetched ahead"
                )
            }
        }
        if let all = config.rules.firstIndex(where: { $0.pattern == "*" }), all + 1 < config.rules.count {
            warnings.append("rules behind the one for \"*\" never hold: the first that matches does")
        }
        if !config.serveStale, config.rules.contains(where: { ($0.staleMs ?? 0) > 0 }) {
            warnings.append("a rule says stale, but serve_stale is false: nothing stale is served")
        }
        if !config.usesWriteBehind, !config.journal.isEmpty {
            warnings.append(
                "journal is given without mode = \"write-behind\", or a rule's: only what an earlier process has left in it is sent"
            )
        }
        return warnings
    }

    /// Of a pattern, what stands before its first special character.
    private static func literal(_ pattern: String) -> Substring { pattern.prefix { !"*?[\\".contains($0) } }

    /// Whether a rule that covers all of the pattern's keys keeps none, and none before it may keep some, as far as their
    /// literals tell.
    private static func isNeverKept(_ pattern: String, _ rules: [KeyRule]) -> Bool {
        let own = literal(pattern)
        for rule in rules {
            let other = literal(rule.pattern)
            if rule.cache != false, own.hasPrefix(other) || other.hasPrefix(own) { return false }
            if rule.cache == false, rule.pattern == pattern || (rule.pattern == other + "*" && own.hasPrefix(other)) {
                return true
            }
        }
        return false
    }

    /// Whether a key with one of the prefixes can match, as the pattern's literal tells.
    private static func mayBegin(_ pattern: String, _ prefixes: [String]) -> Bool {
        let literal = literal(pattern)
        return prefixes.contains { literal.hasPrefix($0) || (literal != pattern && $0.hasPrefix(literal)) }
    }

    /// Unknown variables are ignored, but one that is nearly a key was meant to be it. Those that Kubernetes sets for a
    /// Service (…_SERVICE_HOST, …_PORT_6379_TCP) are not.
    private func misspeltVariables() -> [String] {
        let known = ConfigKey.all.map { $0.environmentName.lowercased() }
        return environment.keys.sorted().compactMap { name in
            guard name.hasPrefix(ConfigKey.environmentPrefix), !known.contains(name.lowercased()),
                !["_SERVICE_", "_TCP", "_UDP"].contains(where: { name.contains($0) }),
                let near = NearestName.of(name, among: known, editsMax: 2)
            else { return nil }
            return "\(name) is ignored: no key has that name; did you mean \(near.uppercased())?"
        }
    }
}
