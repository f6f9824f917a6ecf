import ArgumentParser

/// `ferritectl`: looks at a running sidecar.
@main
struct Ferritectl: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ferritectl",
        abstract: "Look at a running ferrite sidecar.",
        version: "ferritectl \(Version.current)",
        subcommands: [Stats.self])
}
