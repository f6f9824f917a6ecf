import ArgumentParser
import Glibc

/// `ferritectl stats`: the numbers of one sidecar, for people or as JSON.
struct Stats: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show hits, latency, memory and the upstream's state.",
        discussion: """
            Examples:
              ferritectl stats
              ferritectl stats --port 9092 --watch 1
              ferritectl stats --url http://10.1.2.3:9091
              ferritectl stats --json | jq .upstream

            In Kubernetes: kubectl port-forward POD 9091, then ferritectl stats.
            """)

    @Option(
        help: ArgumentHelp("Where the sidecar's metrics page is (default: http://127.0.0.1:9091).", valueName: "url"))
    var url: String?

    @Option(help: ArgumentHelp("The same for a sidecar on this machine: the port alone.", valueName: "number"))
    var port: UInt16?

    @Flag(help: "Print the sidecar's JSON as it is.")
    var json = false

    @Option(help: ArgumentHelp("Show again every so many seconds, with rates, until Ctrl-C.", valueName: "seconds"))
    var watch: Double?

    func validate() throws {
        if url != nil, port != nil { throw ValidationError("--url and --port both say where; give one of the two.") }
        if let watch, !(watch >= 0.1 && watch <= 3_600) {
            throw ValidationError("--watch \(watch): expected seconds from 0.1 to 3600, e.g. --watch 1.")
        }
    }

    func run() throws {
        let isTerminal = isatty(STDOUT_FILENO) == 1
        var screen = StatsScreen(colours: isTerminal && getenv("NO_COLOR") == nil)
        do throws(StatsFailure) {
            let server = try StatsServer(url: url ?? "http://127.0.0.1:\(port ?? 9091)")
            while true {
                let text = try server.fetch("/stats")
                var output = json ? text : screen.render(try StatsReport(json: text))
                if watch != nil, isTerminal, !json { output = "\u{1B}[H\u{1B}[2J" + output }
                print(output, terminator: output.hasSuffix("\n") ? "" : "\n")
                fflush(nil)
                guard let watch else { return }
                usleep(UInt32(watch * 1_000_000))
            }
        } catch {
            var text = "ferritectl: \(error.sentence)\n"
            text.withUTF8 { bytes in _ = write(STDERR_FILENO, bytes.baseAddress, bytes.count) }
            throw ExitCode(69)
        }
    }
}
