import ArgumentParser

/// `ferritectl`: looks at a running sidecar, steers it, and puts it into pods.
@main
struct Ferritectl: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ferritectl",
        abstract: "Look at a running ferrite sidecar, steer it, and put it into pods.",
        version: "ferritectl \(Version.current)",
        subcommands: [
            Stats.self, Flush.self, PrefetchKeys.self, Bypass.self, Drain.self, DeadLetters.self, Inject.self,
            Uninject.self, Webhook.self,
        ])
}
