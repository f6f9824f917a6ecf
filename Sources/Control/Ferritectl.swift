import ArgumentParser

/// `ferritectl`: looks at a running sidecar, and steers it.
@main
struct Ferritectl: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ferritectl",
        abstract: "Look at a running ferrite sidecar, and steer it.",
        version: "ferritectl \(Version.current)",
        subcommands: [Stats.self, Flush.self, PrefetchKeys.self, Bypass.self, Drain.self, DeadLetters.self])
}
