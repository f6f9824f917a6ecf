/// A checked configuration and where each of its values came from.
struct ResolvedConfig: Sendable, Equatable {
    var config: SidecarConfig
    /// By key; keys that nobody gave are missing.
    var sources: [String: ConfigSource]
    /// local_memory as somebody gave it, before the container's limit; nil: nobody did.
    var localMemoryGiven: UInt64?
    /// Sentences for the log at start.
    var warnings: [String]

    /// The effective configuration as TOML, each value with its source; secrets as stars. For `--check-config`.
    func text() -> String {
        var lines: [String] = []
        var table = ""
        /* TOML wants the keys of [sidecar] before those of its tables. */
        for key in ConfigKey.all.filter({ !$0.name.contains(".") }) + ConfigKey.all.filter({ $0.name.contains(".") }) {
            let parts = key.name.split(separator: ".")
            let header = (["sidecar"] + parts.dropLast()).joined(separator: ".")
            if header != table {
                if !table.isEmpty { lines.append("") }
                lines.append("[\(header)]")
                table = header
            }
            let assignment = "\(parts.last ?? "") = \(key.show(config))"
            let padding = String(repeating: " ", count: max(1, 52 - assignment.count))
            lines.append("\(assignment)\(padding)# \(sources[key.name] ?? .standard)")
        }
        return lines.joined(separator: "\n") + "\n"
    }
}
