import ArgumentParser
import Glibc

/// `ferrite`: options to a configuration, then to a running sidecar.
@main
struct Ferrite: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ferrite",
        abstract: "A local cache in front of a Redis server, for one pod.",
        usage: "ferrite --sidecar --upstream HOST:PORT [options]",
        discussion: """
            Applications talk to it as to Redis. Reads are answered from memory near them, everything else goes to \
            the upstream, and what changes there is dropped here.

            Examples:
              ferrite --sidecar --upstream redis.default.svc:6379
              ferrite --sidecar --config /etc/ferrite/sidecar.toml --port 6380
              ferrite --sidecar --upstream HOST:PORT --set local_memory=64mb
              ferrite --sidecar --config sidecar.toml --check-config

            Every key of the configuration can be set in three places. Options win over the environment \
            (FERRITE_SIDECAR_LOCAL_MEMORY=64mb), the environment over the file. docs/configuration.md lists the keys; \
            --check-config shows what is in force and why.

            Exit codes: 0 after SIGTERM or SIGINT, 64 wrong options or no upstream, 69 a port is taken or the network \
            engine is not to be had, 78 the configuration is wrong. docs/configuration.md has them all.
            """,
        version: "ferrite \(Version.current)")

    @Flag(help: "Run as a sidecar. The only way to run, for now.")
    var sidecar = false

    @OptionGroup(title: "Configuration")
    var configuration: ConfigurationOptions

    @OptionGroup(title: "Upstream and listeners")
    var network: NetworkOptions

    func run() throws {
        StandardDescriptors.fill()
        let resolved = load()
        if configuration.checkConfig {
            print(resolved.text(), terminator: "")
            for warning in resolved.warnings { StandardError.write("warning: \(warning)\n") }
            return
        }
        guard sidecar else {
            throw ValidationError("ferrite runs as a sidecar only; say --sidecar.")
        }
        Daemon.run(resolved)
    }

    private func load() -> ResolvedConfig {
        var loader = ConfigLoader()
        loader.flags = network.flags + configuration.flags
        loader.environment = Self.environment()
        loader.cgroupLimitTexts = CgroupMemory.readLimitTexts()
        if let path = configuration.config {
            do throws(TextFile.Failure) {
                loader.file = .init(name: path, bytes: try TextFile.bytes(path, bytesMax: 1 << 20))
            } catch {
                Daemon.fail("--config \(path): \(error.sentence)", code: Daemon.ExitCode.config)
            }
        }
        do throws(ConfigError) {
            return try loader.load()
        } catch {
            if error.isOnlyMissingUpstream {
                Daemon.fail(Self.upstreamWanted, code: Daemon.ExitCode.usage)
            }
            Daemon.fail(
                "the configuration is wrong, nothing was started\n"
                    + error.problems.map { "  \($0)" }.joined(separator: "\n"),
                code: Daemon.ExitCode.config)
        }
    }

    /// Our part of the environment.
    private static func environment() -> [String: String] {
        let text = TextFile.read("/proc/self/environ", bytesMax: 4 << 20) ?? ""
        var variables: [String: String] = [:]
        for variable in text.split(separator: "\0") where variable.hasPrefix(ConfigKey.environmentPrefix) {
            let parts = variable.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2 { variables[String(parts[0])] = String(parts[1]) }
        }
        return variables
    }

    private static let upstreamWanted = """
        a sidecar stands in front of a Redis server, and none was named.
          With one:     ferrite --sidecar --upstream HOST:PORT
          Without one:  scripts/run starts a Redis server and a sidecar in front of it, and shows both at work.
        """
}

struct ConfigurationOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Configuration in TOML.", valueName: "file"))
    var config: String?

    @Option(
        name: .customLong("set"), parsing: .unconditionalSingleValue,
        help: ArgumentHelp("Set any key: --set prefetch.enabled=false. Repeatable.", valueName: "key=value"))
    var assignments: [String] = []

    @Flag(help: "Check the configuration, show every value in force and where it comes from, and exit.")
    var checkConfig = false

    var flags: [ConfigLoader.Flag] {
        assignments.map { assignment in
            let parts = assignment.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let key = String(parts[0])
            return .init(name: "--set \(key)", key: key, text: parts.count > 1 ? String(parts[1]) : "")
        }
    }

    func validate() throws {
        for assignment in assignments where !assignment.contains("=") || assignment.hasPrefix("=") {
            throw ValidationError("--set \(assignment): expected KEY=VALUE, e.g. --set local_memory=64mb.")
        }
    }
}

struct NetworkOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The central server: HOST:PORT, HOST, [IPV6]:PORT, redis://HOST:PORT or, for TLS, rediss://HOST:PORT.",
            valueName: "host:port"))
    var upstream: String?

    @Option(
        help: ArgumentHelp(
            "Addresses to listen on, with commas between them (default: 127.0.0.1,-::1).", valueName: "address"))
    var bind: String?

    @Option(help: ArgumentHelp("TCP port for clients (default: 6379).", valueName: "number"))
    var port: String?

    @Option(help: ArgumentHelp("Also listen on this Unix socket.", valueName: "path"))
    var unixSocket: String?

    @Option(help: ArgumentHelp("Port of /metrics, /healthz, /readyz and /stats (default: 9091).", valueName: "number"))
    var metricsPort: String?

    @Option(help: ArgumentHelp("auto, io_uring or epoll (default: auto).", valueName: "engine"))
    var network: String?

    /// Given as texts: the table of keys reads and checks them, as it does for the environment.
    var flags: [ConfigLoader.Flag] {
        let values = [
            "--upstream": upstream, "--bind": bind, "--port": port, "--unix-socket": unixSocket,
            "--metrics-port": metricsPort, "--network": network,
        ]
        return ConfigKey.all.compactMap { key in
            guard let flag = key.flag, let text = values[flag] ?? nil else { return nil }
            return .init(name: flag, key: key.name, text: text)
        }
    }
}
