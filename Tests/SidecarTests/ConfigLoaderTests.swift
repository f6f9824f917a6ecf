import Testing

@testable import Sidecar

@Suite("configuration")
struct ConfigLoaderTests {
    private func loader(
        _ toml: String? = nil, _ flags: [String: String] = [:], env: [String: String] = [:], limits: [String] = []
    ) -> ConfigLoader {
        var loader = ConfigLoader()
        loader.file = toml.map { .init(name: "f.toml", bytes: Array($0.utf8)) }
        loader.flags = flags.sorted { $0.key < $1.key }.map {
            .init(name: "--set \($0.key)", key: $0.key, text: $0.value)
        }
        loader.environment = env
        loader.cgroupLimitTexts = limits
        loader.readSecret = { _ throws(TextFile.Failure) in throw .system(2) }
        loader.tlsMistakes = { _ in [] }
        return loader
    }

    private func problems(_ loader: ConfigLoader) -> [String] {
        do throws(ConfigError) {
            _ = try loader.load()
            return []
        } catch {
            return error.problems.map(\.description)
        }
    }

    @Test("an upstream is enough; all else has the documented defaults")
    func defaults() throws {
        let config = try loader(nil, ["upstream": "redis"]).load().config
        var wanted = SidecarConfig()
        wanted.upstream = UpstreamAddress(host: "redis", port: 6379)
        #expect(config == wanted)
        #expect(config.localMemory == 128 << 20)
        #expect(config.readTimeoutMs == 50 && config.connectTimeoutMs == 100 && config.linkTimeoutMs == 5_000)
        #expect(config.drainTimeoutMs == 5_000 && config.idleTimeoutMs == 0 && config.ttlDefaultMs == 300_000)
        #expect(config.bind == ["127.0.0.1", "-::1"] && config.port == 6379 && config.maxClients == 1_000)
        #expect(config.metrics == .init(enabled: true, bind: "*", port: 9091))
    }

    @Test("a list in a flag or in the environment may be a TOML list")
    func listsInText() throws {
        for text in ["[\"a b:*\", '[xy]*']", " [\n\"a b:*\",\"[xy]*\", ]"] {
            let config = try loader(
                nil, ["upstream": "r", "prefetch.patterns": text],
                env: [
                    "FERRITE_SIDECAR_TRACKING": "broadcast", "FERRITE_SIDECAR_TRACKING_PREFIXES": "[\"u:\"]",
                    "FERRITE_SIDECAR_BIND": "[]", "FERRITE_SIDECAR_UNIX_SOCKET": "/a",
                ]
            ).load().config
            #expect(config.prefetch.patterns == ["a b:*", "[xy]*"])
            #expect(config.trackingPrefixes == ["u:"] && config.bind == [])
        }
        for (text, what) in [
            ("[xy]*", "[xy]*"), ("[\"a\"]\nport = 1", "is no list"), ("[1]", "the list holds a whole number"),
        ] {
            let found = problems(loader(nil, ["upstream": "r", "prefetch.patterns": text]))
            #expect(found.count == 1 && found[0].contains(what), "\(found)")
        }
    }

    @Test("journal leads to a directory or to nothing")
    func journalPath() throws {
        let settings = ["upstream": "r", "mode": "write-behind"]
        let problems = problems(loader(nil, settings.merging(["journal": "/dev/null"]) { $1 }))
        #expect(problems.first?.contains("\"/dev/null\" is there and is no directory; expected a directory") ?? false)
        #expect(try loader(nil, settings.merging(["journal": "/tmp"]) { $1 }).load().config.journal == "/tmp")
    }

    @Test("warm_start leads to a file or to nothing", arguments: ["/dev/null", "/tmp"])
    func warmStartPath(path: String) throws {
        let problems = problems(loader(nil, ["upstream": "r", "warm_start": path]))
        #expect(problems.count == 1)
        #expect(problems.first?.contains("\"\(path)\" is there and is no file; expected the path of a file") ?? false)
        #expect(try loader(nil, ["upstream": "r", "warm_start": "/no/such"]).load().config.warmStart == "/no/such")
    }

    @Test("every key can be set by file, environment and flag, and a later one wins")
    func everyKeyEverywhere() throws {
        let samples: [String: (file: String, env: String, flag: String)] = [
            "enabled": ("true", "true", "true"), "upstream": ("\"a\"", "b", "c"),
            "mode": ("\"write-through\"", "write-behind", "read-through"), "username": ("\"a\"", "b", "c"),
            "password": ("\"a\"", "b", "c"), "password_file": ("\"\"", "", ""),
            "tls_ca_cert_file": ("\"\"", "", ""), "tls_cert_file": ("\"\"", "", ""), "tls_key_file": ("\"\"", "", ""),
            "tls_server_name": ("\"\"", "", ""), "tls_min_version": ("\"1.3\"", "1.2", "1.3"),
            "connect_timeout": ("\"1s\"", "2s", "3"), "read_timeout": ("1", "2s", "3s"),
            "link_timeout": ("\"1m\"", "2m", "3m"),
            "fence": ("false", "true", "false"), "allow_admin": ("true", "false", "true"),
            "control_key": ("\"a\"", "b", "c"),
            "local_memory": ("\"33mb\"", "34mb", "35Mi"),
            "eviction": ("\"lfu\"", "random", "lru"), "ttl_default": ("1.5", "2", "3"),
            "serve_stale": ("false", "true", "false"), "stale_max": ("\"1m\"", "2m", "0"),
            "rules": (
                "[{pattern = \"a*\", ttl = 1}]", "[{pattern = \"b\", mode = \"write-through\"}]",
                "[{cache = false, pattern = \"c\", stale = \"10m\"}]"
            ),
            "bind": ("[\"::1\"]", "127.0.0.1", "127.0.0.1,-::1"), "port": ("1", "2", "3"),
            "admin_socket": ("\"/a\"", "/b", "/c"),
            "unix_socket": ("\"/a\"", "/b", "/c"), "network": ("\"epoll\"", "io_uring", "auto"),
            "max_clients": ("1", "2", "3"), "idle_timeout": ("1", "2", "3"), "drain_timeout": ("1", "2", "3"),
            "journal": ("\"/a\"", "/b", "/c"), "journal_fsync": ("\"always\"", "no", "everysec"),
            "tracking": ("\"off\"", "optin", "broadcast"), "tracking_prefixes": ("[\"a:\"]", "b:", "c:,d:"),
            "warm_start": ("\"/a\"", "/b", "/c"),
            "audit": ("0.001", "1", "0"), "fresh_port": ("21", "22", "23"),
            "write_behind.memory": ("\"1mb\"", "2mb", "3mb"), "write_behind.retry_for": ("1", "2", "3"),
            "metrics.enabled": ("false", "true", "false"), "metrics.bind": ("\"::1\"", "127.0.0.1", "*"),
            "metrics.port": ("11", "12", "13"), "log_level": ("\"debug\"", "trace", "error"),
            "log_format": ("\"json\"", "pretty", "json"), "trace_key": ("\"a\"", "b", "c"),
            "prefetch.enabled": ("true", "false", "true"),
            "prefetch.scan_rate": ("1", "2", "3"), "prefetch.fill_rate": ("1", "2", "3"),
            "prefetch.share": ("1", "2", "3"), "prefetch.jitter": ("1", "2", "3"),
            "prefetch.timeout": ("1", "2", "3"), "prefetch.ready_after_prefetch": ("true", "false", "true"),
            "prefetch.patterns": ("[\"a:*\"]", "b:*", "c:*,d:*"),
        ]
        #expect(Set(samples.keys) == Set(ConfigKey.all.map(\.name)))
        for key in ConfigKey.all {
            let sample = try #require(samples[key.name])
            let base = key.name == "upstream" ? "" : "upstream = \"x\"\n"
            let needs = ["username": "password = \"p\"\n", "tracking_prefixes": "tracking = \"broadcast\"\n"]
            let more = needs[key.name, default: ""]
            let toml = "[sidecar]\n\(base)\(more)\(key.name) = \(sample.file)\n"
            func shown(_ loader: ConfigLoader) throws -> String {
                let resolved = try loader.load()
                return key.isSecret ? resolved.config.password.reveal() : key.show(resolved.config)
            }
            func alone(_ text: String) throws -> String {
                var config = SidecarConfig()
                try key.applyText(text, &config)
                return key.isSecret ? config.password.reveal() : key.show(config)
            }
            let env = [key.environmentName: sample.env]
            #expect(try shown(loader(toml)) == (key.isSecret ? "a" : shownFile(key, sample.file)), "\(key.name)")
            if sample.env.isEmpty { continue }
            #expect(try shown(loader(toml, env: env)) == alone(sample.env), "\(key.name)")
            #expect(try shown(loader(toml, [key.name: sample.flag], env: env)) == alone(sample.flag), "\(key.name)")
        }
    }

    private func shownFile(_ key: ConfigKey, _ toml: String) throws -> String {
        var config = SidecarConfig()
        try key.applyTOML(try #require(TOMLDocument(Array("k = \(toml)".utf8)).entries.first?.value), &config)
        return key.show(config)
    }

    @Test("of rules, too, all that is wrong is said at once, and [sidecar.rules] is told from [[sidecar.rules]]")
    func allWrongRules() {
        let head = "[sidecar]\nupstream = \"r\"\n"
        let rules = "[[sidecar.rules]]\nttl = \"soon\"\ncash = 1\n[[sidecar.rules]]\npattern = \"\"\n"
        let found = problems(loader(head + rules)).map { $0.prefix { $0 != ";" } }
        #expect(
            found == [
                "f.toml:4: key \"rules\": rule 1, ttl: \"soon\" is no duration",
                "f.toml:4: key \"rules\": rule 1 has no pattern",
                "f.toml:5: key \"rules\": rule 1, cash: is not known",
                "f.toml:7: key \"rules\": rule 2, pattern: is empty",
            ])
        #expect(
            problems(loader(head + "[sidecar.rules]\npattern = \"a\"\n")) == [
                "f.toml:3: [sidecar.rules] is one of several; expected [[sidecar.rules]], once for each"
            ])
    }

    @Test("rules stand in [[sidecar.rules]] or in a list, in their order")
    func rules() throws {
        let expected = [
            KeyRule(pattern: "user:*", mode: .writeThrough, ttlMs: 60_000, cache: true, staleMs: 600_000),
            KeyRule(pattern: "tmp:*", cache: false),
        ]
        let tables = try loader(
            """
            [sidecar]
            upstream = "r"
            [[sidecar.rules]]
            pattern = "user:*"
            mode = "write-through"
            ttl = 60
            cache = true
            stale = "10m"

            [[sidecar.rules]] # the second
            pattern = "tmp:*"
            cache = false
            [sidecar.metrics]
            port = 1
            """
        ).load()
        #expect(tables.config.rules == expected)
        #expect(tables.config.metrics.port == 1)
        let list = try loader(
            """
            [sidecar]
            upstream = "r"
            rules = [
              { pattern = "user:*", mode = "write-through", ttl = 60, cache = true, stale = "10m" },
              { pattern = "tmp:*", cache = false },
            ]
            """
        ).load()
        #expect(list.config.rules == expected)
        #expect(
            list.text().contains(
                "rules = [{pattern = \"user:*\", mode = \"write-through\", ttl = \"1m\", cache = true, stale = \"10m\"}, "
                    + "{pattern = \"tmp:*\", cache = false}]"))
    }

    @Test("a wrong rule is named by its number, its member and the member's own line")
    func wrongRules() {
        func problem(_ rule: String) -> String {
            problems(
                loader("[sidecar]\nupstream = \"r\"\n[[sidecar.rules]]\npattern = \"a\"\n[[sidecar.rules]]\n\(rule)\n")
            )
            .joined(separator: "\n")
        }
        let found = [
            "pattern = \"b\"\nttl = \"soon\"": "f.toml:7: key \"rules\": rule 2, ttl: \"soon\" is no duration",
            "ttl = 1": "f.toml:6: key \"rules\": rule 2 has no pattern",
            "": "f.toml:3: key \"rules\": rule 2 has no pattern",
            "patern = \"b\"": "f.toml:6: key \"rules\": rule 2, patern: is not known; did you mean \"pattern\"?",
            "pattern = 1": "f.toml:6: key \"rules\": rule 2, pattern: is a whole number",
            "pattern = \"b\"\nmode = \"write-trough\"": "rule 2, mode: \"write-trough\" is not known; did you mean",
            "pattern = \"b\"\npattern = \"c\"": "f.toml:7: key \"pattern\" was already given on line 6",
        ]
        for (rule, expected) in found { #expect(problem(rule).contains(expected), "\(rule)") }
        #expect(
            problems(loader("[sidecar]\nupstream = \"r\"\n[[sidecar.rulez]]\npattern = \"a\"\n")).joined()
                .contains("f.toml:3: key \"rulez\": is not known; did you mean \"rules\"?"))
        #expect(
            problems(loader("[sidecar]\nupstream = \"r\"\n[sidecar.rules]\npattern = \"a\"\n")).joined()
                .contains("f.toml:"))
    }

    @Test("rules in the environment are a list and nothing else")
    func rulesInText() throws {
        var config = SidecarConfig()
        let key = try #require(ConfigKey.named("rules"))
        for text in ["{a = [{pattern = \"x\"}]}", "[]\n[foo]", "[]\nx = 1", "1", "[1]", "[{pattern = \"x\"}", ""] {
            #expect(throws: ConfigMistake.self, "\(text)") { try key.applyText(text, &config) }
        }
        try key.applyText("[]", &config)
    }

    @Test("tables may be headers, dotted keys or inline")
    func tables() throws {
        for toml in [
            "[sidecar]\nupstream = \"r\"\n[sidecar.metrics]\nport = 1\n",
            "sidecar.upstream = \"r\"\nsidecar.metrics.port = 1\n",
            "[sidecar]\nupstream = \"r\"\nmetrics.port = 1\n",
            "sidecar = { upstream = \"r\", metrics = { port = 1 } }\n",
        ] {
            let resolved = try loader(toml).load()
            #expect(resolved.config.metrics.port == 1)
            #expect(resolved.config.upstream.host == "r")
        }
    }

    @Test("every problem is reported at once, with file, line, key and what was expected")
    func allAtOnce() {
        let found = problems(
            loader(
                """
                [sidecar]
                local_memory = 128
                eviction = "lfru"
                ttl_defualt = 300
                read_timeout = 50ms
                port = "6379"
                bind = "localhost"

                [sidecar.prefetch]
                enabled = 1
                [server]
                port = 1
                [sidecar.metrisc]
                """, ["max_clients": "many"], env: ["FERRITE_SIDECAR_IDLE_TIMEOUT": "1 week"]))
        #expect(
            found == [
                "f.toml:2: key \"local_memory\": 128 needs a unit and quotes; expected a size of b, kb, mb, gb, Ki, Mi or Gi (powers of 1024), e.g. \"128mb\"",
                "f.toml:3: key \"eviction\": \"lfru\" is not known; did you mean \"lru\"?; expected one of \"lru\", \"lfu\", \"random\"",
                "f.toml:4: key \"ttl_defualt\": is not known; did you mean \"ttl_default\"?",
                "f.toml:5: key \"read_timeout\": 50ms is no TOML value; expected text in quotes, e.g. read_timeout = \"50ms\"",
                "f.toml:6: key \"port\": \"6379\" is a text in quotes; expected a whole number from 0 to 65535, e.g. 6379",
                "f.toml:7: key \"bind\": \"localhost\" is a name; write 127.0.0.1 or ::1; expected one or several numeric addresses, e.g. \"127.0.0.1\" or [\"127.0.0.1\", \"-::1\"]",
                "f.toml:10: key \"prefetch.enabled\": 1 is a whole number without quotes; expected true or false",
                "f.toml:11: [server] is not known; expected [sidecar] or [sidecar.write_behind] or [sidecar.metrics] or [sidecar.prefetch]",
                "f.toml:13: [sidecar.metrisc] is not known; did you mean [sidecar.metrics]?",
                "FERRITE_SIDECAR_IDLE_TIMEOUT: key \"idle_timeout\": \"1 week\" is no duration; expected a duration in ms, s, m or h, or plain seconds, e.g. \"5m\"",
                "--set max_clients: key \"max_clients\": \"many\" is not a whole number; expected a whole number from 1 to 100000, e.g. 1000",
                "key \"upstream\": no upstream is given; expected the address of a Redis server, e.g. --upstream redis.default.svc:6379",
            ])
    }

    @Test("an upstream on a line that cannot be read is not said to be missing too")
    func unreadable() {
        let told = problems(loader("[sidecar]\nupstream \"r\"\n"))
        #expect(told.count == 1 && told[0].hasPrefix("f.toml:2: "))
    }

    @Test("a key above [sidecar] is told where it belongs")
    func outside() {
        #expect(
            problems(loader("port = 1\n[sidecar]\nupstream = \"r\"\n")) == [
                "f.toml:1: key \"port\": stands outside [sidecar]; expected a line [sidecar] above it"
            ])
        #expect(
            problems(loader("[sidcar]\nupstream = \"r\"\n", ["upstream": "r"])) == [
                "f.toml:1: [sidcar] is not known; did you mean [sidecar]?"
            ])
        #expect(
            problems(loader("server.port = 1\n", ["upstream": "r"])) == [
                "f.toml:1: key \"server.port\": is not known: only [sidecar] is read; expected keys below [sidecar]"
            ])
        #expect(problems(loader("sidecar = 1\n", ["upstream": "r"])).first?.contains("is a table, not a key") == true)
    }

    @Test("only a missing upstream is a first start, not a mistake")
    func missingUpstream() {
        #expect(throws: ConfigError.self) { try loader().load() }
        do { _ = try loader().load() } catch { #expect(error.isOnlyMissingUpstream) }
        do { _ = try loader(nil, ["port": "x"]).load() } catch { #expect(!error.isOnlyMissingUpstream) }
        do { _ = try loader(nil, ["upstream": ":"]).load() } catch {
            #expect(!error.isOnlyMissingUpstream)
            #expect(error.problems.count == 1)
        }
    }

    @Test("Kubernetes' service variables, empty and unknown ones are ignored")
    func environment() throws {
        let env = [
            "FERRITE_SIDECAR_PORT": "tcp://10.0.0.1:6379", "FERRITE_SIDECAR_METRICS_PORT": "udp://10.0.0.1:1",
            "FERRITE_SIDECAR_SERVICE_HOST": "10.0.0.1", "FERRITE_SIDECAR_BIND": "", "FERRITE_SIDECAR_NONSENSE": "1",
        ]
        let resolved = try loader(nil, ["upstream": "r"], env: env).load()
        #expect(resolved.config.port == 6379)
        #expect(resolved.sources.keys.sorted() == ["upstream"])
        let named = try loader("[sidecar]\nupstream = \"r\"\n", env: ["FERRITE_SIDECAR_UPSTREAM": "tcp://s:1"]).load()
        #expect(named.config.upstream.description == "s:1")
    }

    @Test("a variable that is nearly a key is ignored with a warning")
    func misspelt() throws {
        let env = [
            "FERRITE_SIDECAR_LOCAL_MEMROY": "64mb", "FERRITE_SIDECAR_PORT_6379_TCP_PORT": "1",
            "FERRITE_SIDECAR_SERVICE_PORT": "1",
            "FERRITE_SIDECAR_METRICS_SERVICE_PORT": "1", "FERRITE_SIDECAR_SOMETHING_ELSE": "1",
        ]
        #expect(
            try loader(nil, ["upstream": "r"], env: env).load().warnings == [
                "FERRITE_SIDECAR_LOCAL_MEMROY is ignored: no key has that name; did you mean FERRITE_SIDECAR_LOCAL_MEMORY?"
            ])
    }

    @Test("one key by two flags must agree")
    func twice() throws {
        var both = loader(nil, ["upstream": "r"])
        both.flags += [
            .init(name: "--port", key: "port", text: "1"), .init(name: "--set port", key: "sidecar.port", text: "1"),
        ]
        #expect(try both.load().config.port == 1)
        both.flags.append(.init(name: "--set port", key: "port", text: "2"))
        #expect(
            problems(both) == [
                "--set port: key \"port\": was given twice with different values, also by --set port; expected one of the two"
            ])
    }

    @Test(
        "combinations that cannot work are refused",
        arguments: [
            (["unix_socket": "/s", "admin_socket": "/s"], "admin_socket"),
            (["journal": "/j", "warm_start": "/j"], "warm_start"),
            (["port": "9091"], "metrics.port"), (["metrics.port": "6379"], "metrics.port"),
            (["password": "a", "password_file": "/b"], "password_file"), (["username": "a"], "username"),
            (["tls_ca_cert_file": "/a"], "tls_ca_cert_file"), (["tls_server_name": "a"], "tls_server_name"),
            (["upstream": "rediss://r", "tls_cert_file": "/a"], "tls_cert_file"),
            (["upstream": "rediss://r", "tls_key_file": "/a"], "tls_key_file"),
            (["enabled": "false"], "enabled"), (["bind": ""], "bind"), (["bind": "::1 ::1"], "bind"),
            (["upstream": "127.0.0.1:6379"], "upstream"), (["upstream": "localhost"], "upstream"),
            (["upstream": "localhost", "bind": "0.0.0.0"], "upstream"), (["read_timeout": "6s"], "link_timeout"),
            (["bind": "0.0.0.0,127.0.0.1"], "bind"), (["bind": "::1,-::1"], "bind"),
            (["bind": "::1,0:0:0:0:0:0:0:1"], "bind"),
            (["upstream": "LOCALHOST"], "upstream"), (["upstream": "[::1]:6379"], "upstream"),
            (["upstream": "[::1]:9091"], "upstream"), (["upstream": "localhost", "bind": "::1"], "upstream"),
            (["upstream": "127.0.0.1:9091"], "upstream"), (["upstream": "[0:0::1]:6379", "bind": "::1"], "upstream"),
            (["upstream": "127.0.0.1:7000", "fresh_port": "7000"], "upstream"),
            (["upstream": "localhost:7000", "fresh_port": "7000", "bind": "0.0.0.0"], "upstream"),
        ] as [([String: String], String)])
    func combinations(_ flags: [String: String], _ key: String) {
        let found = problems(loader(nil, ["upstream": "r"].merging(flags) { $1 }))
        #expect(found.count == 1 && found[0].contains("key \"\(key)\": "), "\(found)")
    }

    @Test("combinations that look alike but work are taken")
    func combinationsThatWork() throws {
        for flags in [
            ["bind": "", "unix_socket": "/s"], ["port": "9091", "metrics.enabled": "false"],
            ["port": "0", "metrics.port": "0"],
            ["upstream": "127.0.0.1:6380"], ["upstream": "127.0.0.1:6379", "port": "6380"],
            ["upstream": "10.0.0.1:6379"], ["bind": "0.0.0.0,::"], ["bind": "-0.0.0.0 -::"],
            ["bind": "127.0.0.1,127.0.0.2"],
            ["upstream": "127.0.0.1:9091", "metrics.enabled": "false"],
            ["upstream": "127.0.0.1:7000", "fresh_port": "7001"],
        ] {
            _ = try loader(nil, ["upstream": "r"].merging(flags) { $1 }).load()
        }
    }

    @Test(
        "ranges are held",
        arguments: [
            ("local_memory", "31mb"), ("local_memory", "2048gb"), ("port", "65536"), ("port", "-1"),
            ("max_clients", "0"),
            ("read_timeout", "0"), ("ttl_default", "0"), ("link_timeout", "10ms"), ("idle_timeout", "10000h"),
            ("unix_socket", "relative"),
            ("unix_socket", "/" + String(repeating: "x", count: 107)), ("metrics.bind", ""), ("log_level", "loud"),
            ("enabled", "yes"),
        ])
    func ranges(_ key: String, _ text: String) {
        let found = problems(loader(nil, ["upstream": "r", key: text]))
        #expect(found.count == 1 && found[0].hasPrefix("--set \(key): key \"\(key)\": "), "\(found)")
        #expect(found[0].contains("; expected "))
    }

    @Test(
        "an address that is none says what to write",
        arguments: [
            ("bind", "*", "0.0.0.0 and ::"), ("bind", "-::*", "0.0.0.0 and ::"),
            ("bind", "-localhost", "127.0.0.1 or ::1"),
            ("bind", "--::1", "\"-::1\" is no"), ("metrics.bind", "-::1", "or \"*\" for all"),
            ("metrics.bind", "localhost", "127.0.0.1 or ::1"),
        ])
    func addresses(_ key: String, _ text: String, _ sentence: String) {
        let found = problems(loader(nil, ["upstream": "r", key: text]))
        #expect(found.count == 1 && found[0].contains(sentence), "\(found)")
    }

    @Test("the password file is read, without its last line end")
    func passwordFile() throws {
        var withFile = loader(nil, ["upstream": "r", "password_file": "/p", "username": "u"])
        withFile.readSecret = { _ in Array("s3cret\r\n".utf8) }
        #expect(try withFile.load().config.password == Secret("s3cret"))
        withFile.readSecret = { _ in Array("\n".utf8) }
        #expect(problems(withFile).first?.contains("is empty") == true)
        withFile.readSecret = { _ throws(TextFile.Failure) in throw .system(13) }
        #expect(
            problems(withFile) == [
                "--set password_file: key \"password_file\": \"/p\" cannot be read: Permission denied; expected the path of a file that holds the password"
            ])
    }

    @Test("passwords are never shown")
    func secrets() throws {
        var shown = try loader("[sidecar]\nupstream = \"r\"\npassword = \"hunter2\"\n").load().text()
        #expect(shown.contains("password = \"********\""))
        dump(try loader(nil, ["upstream": "r", "password": "hunter2"]).load(), to: &shown)
        shown += problems(loader("[sidecar]\npassword = hunter2\n")).joined()
        shown += problems(loader("[sidecar]\npassword = [\"hunter2\"]\nupstream=\"r\"\n")).joined()
        #expect(!shown.contains("hunter2"))
    }

    @Test("a container's limit makes the default, and clamps what is larger")
    func memory() throws {
        let limit = ["134217728\n"]
        let byDefault = try loader(nil, ["upstream": "r"], limits: limit).load()
        #expect(byDefault.config.localMemory == 112 << 20)
        #expect(byDefault.warnings.isEmpty)
        #expect(byDefault.text().contains("local_memory = \"112mb\""))
        #expect(byDefault.text().contains("# container limit of 128mb, less max(16mb, 12%)"))

        let clamped = try loader(nil, ["upstream": "r", "local_memory": "128mb"], limits: limit).load()
        #expect(clamped.config.localMemory == 112 << 20)
        #expect(clamped.warnings.count == 1 && clamped.warnings[0].contains("more than the container can hold"))

        let smaller = try loader(nil, ["upstream": "r", "local_memory": "64mb"], limits: limit).load()
        #expect(smaller.config.localMemory == 64 << 20 && smaller.warnings.isEmpty)

        #expect(
            problems(loader(nil, ["upstream": "r"], limits: ["41943040"])) == [
                "key \"local_memory\": the container's memory limit of 40mb leaves 24mb after the 16mb kept free; expected a memory limit of at least 48Mi"
            ])
    }

    @Test("what write-behind loses is said at start, and what does nothing as it is set")
    func later() throws {
        let warnings = try loader(
            "[sidecar]\nupstream = \"r\"\nmode = \"write-behind\"\n[sidecar.prefetch]\nenabled = true\n"
        ).load().warnings
        #expect(warnings.count == 2)
        #expect(warnings[0].contains("are lost when this process, the pod or the node dies"))
        #expect(warnings[1].contains("prefetch has no patterns"))
        let idle = try loader(nil, ["upstream": "r", "journal": "/j", "prefetch.patterns": "a:*"]).load().warnings
        #expect(idle.count == 2)
        #expect(idle[0].contains("prefetch.enabled is false"))
        #expect(idle[1].contains("only what an earlier process has left in it"))
        let unkept = try loader(
            "[sidecar]\nupstream = \"r\"\ntracking = \"broadcast\"\ntracking_prefixes = [\"user:\"]\nserve_stale = false\n"
                + "[sidecar.prefetch]\nenabled = true\npatterns = [\"u*\", \"user:1?\", \"config:*\", \"us\"]\n"
                + "[[sidecar.rules]]\npattern = \"*\"\nstale = 1\n[[sidecar.rules]]\npattern = \"a\"\n"
        ).load().warnings
        #expect(unkept.count == 4)
        #expect(unkept[0].contains("\"config:*\"") && unkept[1].contains("\"us\""))
        #expect(unkept[2].contains("never hold") && unkept[3].contains("serve_stale is false"))
        let warm = ["upstream": "r", "prefetch.enabled": "true", "warm_start": "/no/such"]
        #expect(try loader(nil, warm).load().warnings == [])
    }

    @Test("prefetch patterns whose keys a rule never keeps are told of at start")
    func neverKept() throws {
        let warnings = try loader(
            "[sidecar]\nupstream = \"r\"\n[sidecar.prefetch]\nenabled = true\n"
                + "patterns = [\"nc:*\", \"nc:a?\", \"n*\", \"mix:*\", \"mix:b\", \"s[ab]\"]\n"
                + "[[sidecar.rules]]\npattern = \"mix:a*\"\nttl = 1\n[[sidecar.rules]]\npattern = \"mix:*\"\ncache = false\n"
                + "[[sidecar.rules]]\npattern = \"nc:*\"\ncache = false\n[[sidecar.rules]]\npattern = \"s[ab]\"\ncache = false\n"
        ).load().warnings
        #expect(warnings.map { $0.split(separator: "\"")[1] } == ["nc:*", "nc:a?", "mix:b", "s[ab]"])
        #expect(warnings.allSatisfy { $0.contains("none is fetched ahead") })
    }

    @Test("what --check-config shows is the configuration, and says where each value is from")
    func checkConfig() throws {
        let resolved = try loader(
            "[sidecar]\nupstream = \"r\"\neviction = \"lfu\"\n[sidecar.prefetch]\npatterns = [\"a:*\", \"q\\\"x\"]\n",
            ["port": "7"],
            env: ["FERRITE_SIDECAR_METRICS_PORT": "8"]
        ).load()
        let text = resolved.text()
        for (assignment, source) in [
            ("eviction = \"lfu\"", "f.toml:3"), ("port = 7", "--set port"),
            ("port = 8", "FERRITE_SIDECAR_METRICS_PORT"),
            ("network = \"auto\"", "default"),
        ] {
            #expect(
                text.split(separator: "\n").contains { $0.hasPrefix(assignment + " ") && $0.hasSuffix("# \(source)") },
                "\(assignment)")
        }
        #expect(try loader(text).load().config == resolved.config)
    }
}
