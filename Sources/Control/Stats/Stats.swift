import ArgumentParser
import Glibc

/// `ferritectl stats`: the numbers of one sidecar, for people or as JSON.
struct Stats: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show hits, latency, memory and the upstream's state.",
        discussion: """
            Examples:
              ferritectl stats
              ferritectl stats --url http://127.0.0.1:9092 --watch 1
              ferritectl stats --json | jq .upstream

            In Kubernetes: kubectl port-forward POD 9091, then ferritectl stats.
            """)

    @Option(help: ArgumentHelp("Where the sidecar's metrics page is.", valueName: "url"))
    var url = "http://127.0.0.1:9091"

    @Flag(help: "Print the sidecar's JSON as it is.")
    var json = false

    @Option(help: ArgumentHelp("Show again every so many seconds, with rates, until Ctrl-C.", valueName: "seconds"))
    var watch: Double?

    func validate() throws {
        if let watch, !(watch >= 0.1 && watch <= 3_600) {
            throw ValidationError("--watch \(watch): expected seconds from 0.1 to 3600, e.g. --watch 1.")
        }
    }

    func run() throws {
        let isTerminal = isatty(STDOUT_FILENO) == 1
        var screen = StatsScreen(colours: isTerminal && getenv("NO_COLOR") == nil)
        do {
            let server = try StatsServer(url: url)
            while true {
                let text = try server.fetch("/stats")
                var output = json ? text : screen.render(try StatsReport(json: text))
                if watch != nil, isTerminal, !json { output = "\u{1B}[H\u{1B}[2J" + output }
                print(output, terminator: output.hasSuffix("\n") ? "" : "\n")
                fflush(nil)
                guard let watch else { return }
                usleep(UInt32(watch * 1_000_000))
            }
        } catch let error as StatsFailure {
            fputs("ferritectl: \(error.sentence)\n", stderr)
            throw ExitCode(69)
        }
    }
}
