/// The screen of `ferritectl stats`: one sidecar at a glance, 80 columns wide. Remembers the report before it for
/// rates.
///
///     who and where ─ upstream ─ network ─ hit ratio ─ commands by outcome ─ latency ─ memory by owner ─ process
struct StatsScreen {
    let colours: Bool
    private var before: StatsReport?

    private static let barWidth = 24
    /// Where the text after a line's title begins.
    private static let titleWidth = 11

    init(colours: Bool) { self.colours = colours }

    mutating func render(_ report: StatsReport) -> String {
        defer { before = report }
        var lines = header(report)
        lines.append("")
        lines += hits(report)
        lines += commands(report)
        lines += written(report)
        lines += fetchedAhead(report)
        lines += audited(report)
        lines.append("")
        lines += latency(report)
        lines.append("")
        lines += memory(report)
        lines.append("")
        lines += rest(report)
        return lines.map(Self.withoutTrailingBlanks).joined(separator: "\n") + "\n"
    }

    // MARK: who and where

    private func header(_ report: StatsReport) -> [String] {
        let upstream = report.upstream
        var lines = [
            bold("ferrite sidecar \(report.version)")
                + "  \(report.mode), up \(Units.uptime(seconds: report.uptimeSeconds))",
            title("listens") + report.listeners.joined(separator: ", "),
        ]
        let state = upstream.state == "up" ? green("up") : red(upstream.state)
        let tracking = upstream.tracking ? green("tracking on") : yellow("tracking off")
        lines.append(
            title("upstream")
                + "\(upstream.address)  \(state), \(tracking), round trip \(Units.duration(seconds: upstream.roundTripSeconds))"
        )
        var more =
            "\(Self.plural(upstream.connections, "connection")), epoch \(upstream.epoch), \(Self.plural(upstream.reconnects, "reconnect"))"
        if !upstream.lastError.isEmpty { more += ", last error: \(upstream.lastError)" }
        lines.append(title("") + more)
        if !upstream.tracking, !upstream.trackingReason.isEmpty {
            lines.append(title("") + yellow("without tracking: \(upstream.trackingReason)"))
        }
        let reason = report.network.reason.isEmpty ? "" : "  (\(report.network.reason))"
        lines.append(title("network") + report.network.engine + reason)
        return lines
    }

    // MARK: what it does

    private func hits(_ report: StatsReport) -> [String] {
        guard let hits = report.value("ferrite_keyspace_hits_total"),
            let misses = report.value("ferrite_keyspace_misses_total")
        else { return [] }
        let ratio = Units.percent(hits, of: hits &+ misses)
        var lines = [
            title("hit ratio") + bold(Self.left(ratio, 7)) + bar(hits, of: hits &+ misses)
                + "  \(Units.count(hits)) hit, \(Units.count(misses)) missed"
        ]
        var facts: [String] = []
        for (name, word) in [
            ("ferrite_keys", "held"), ("ferrite_evicted_keys_total", "evicted"),
            ("ferrite_expired_keys_total", "expired"),
            ("ferrite_sidecar_invalidations_total", "invalidated"),
            ("ferrite_sidecar_suspect_served_total", "served while unreachable"),
        ] {
            guard let value = report.value(name) else { continue }
            facts.append("\(Units.count(value)) \(word)")
        }
        lines += Self.wrap(facts).map { title($0.offset == 0 ? "keys" : "") + $0.line }
        return lines
    }

    private func commands(_ report: StatsReport) -> [String] {
        let name = "ferrite_sidecar_commands_total"
        let past = before?.sums(name, by: "outcome") ?? []
        let facts = report.sums(name, by: "outcome").filter { $0.value > 0 }.map { outcome, value in
            var fact = "\(Units.count(value)) \(outcome)"
            if let rate = rate(report, value, since: past.first { $0.label == outcome }?.value) {
                fact += " (\(rate)/s)"
            }
            return fact
        }
        return Self.wrap(facts).map { title($0.offset == 0 ? "commands" : "") + $0.line }
    }

    /// What is acknowledged and not upstream, where there is write-behind.
    private func written(_ report: StatsReport) -> [String] {
        let queued = report.value("ferrite_sidecar_write_behind_queued") ?? 0
        let bytes = report.value("ferrite_sidecar_write_behind_bytes") ?? 0
        let confirmed = report.value("ferrite_sidecar_write_behind_total", "outcome", "confirmed") ?? 0
        let refused = report.value("ferrite_sidecar_write_behind_total", "outcome", "refused") ?? 0
        guard report.mode == "write-behind" || queued + confirmed + refused > 0 else { return [] }
        let given = "\(Units.count(refused)) given up"
        var lines = [
            title("queue")
                + "\(Units.count(queued)) acknowledged and not upstream, \(Units.bytes(bytes)); \(Units.count(confirmed)) carried out, "
                + (refused > 0 ? red(given) : given)
        ]
        if let journal = report.journal, journal.on || journal.batches + journal.failures > 0 {
            let state = journal.on ? green("on") : red("off: it cannot be written")
            lines.append(
                title("journal")
                    + "\(state), \(Units.bytes(journal.bytes)), \(Self.plural(journal.batches, "batch", "batches")), \(Self.plural(journal.failures, "failure"))"
            )
        }
        return lines
    }

    private func fetchedAhead(_ report: StatsReport) -> [String] {
        guard let prefetch = report.prefetch, prefetch.state != "off" else { return [] }
        let errors = prefetch.errors > 0 ? ", " + yellow(Self.plural(prefetch.errors, "error")) : ""
        return [
            title("prefetch")
                + "\(prefetch.state), \(Units.count(prefetch.fetched)) of \(Units.count(prefetch.names)) keys\(errors)"
        ]
    }

    private func audited(_ report: StatsReport) -> [String] {
        let rows = report.rows("ferrite_sidecar_audit_total")
        guard rows.contains(where: { $0.value ?? 0 > 0 }) else { return [] }
        let facts = rows.compactMap { row -> String? in
            guard let value = row.value, let result = row.labels["result"] else { return nil }
            let fact = "\(Units.count(value)) \(result)"
            return result == "stale" && value > 0 ? red(fact) : fact
        }
        return [title("audit") + facts.joined(separator: ", ")]
    }

    /// Per second since the report before; nil without one.
    private func rate(_ report: StatsReport, _ now: UInt64, since then: UInt64?) -> String? {
        guard let before, report.uptimeSeconds > before.uptimeSeconds, let then, now >= then else { return nil }
        return Units.count(UInt64((Double(now - then) / (report.uptimeSeconds - before.uptimeSeconds)).rounded()))
    }

    // MARK: latency

    private func latency(_ report: StatsReport) -> [String] {
        var rows = report.rows("ferrite_command_duration_seconds")
            .filter { $0.count ?? 0 > 0 }.map { ($0.labels["outcome"] ?? "", $0) }
        rows += report.rows("ferrite_sidecar_loop_turn_seconds").map { ("loop turn", $0) }
        guard !rows.isEmpty else { return [] }
        let head = Self.row(["latency", "count", "mean", "p50", "p99", "p99.9"])
        return [dim(head)]
            + rows.map { name, row in
                Self.row([
                    name, Units.count(row.count ?? 0), Units.duration(seconds: row.meanSeconds ?? 0),
                    Units.duration(seconds: row.p50Seconds ?? 0), Units.duration(seconds: row.p99Seconds ?? 0),
                    Units.duration(seconds: row.p999Seconds ?? 0),
                ])
            }
    }

    private static func row(_ cells: [String]) -> String {
        left(cells[0], titleWidth) + right(cells[1], 13) + cells[2...].map { right($0, 11) }.joined()
    }

    // MARK: memory

    private func memory(_ report: StatsReport) -> [String] {
        guard let used = report.value("ferrite_memory_used_bytes"),
            let budget = report.value("ferrite_memory_max_bytes")
        else { return [] }
        let owners = report.rows("ferrite_sidecar_memory_bytes")
            .compactMap { row in row.value.map { (name: row.labels["owner"] ?? "", bytes: $0) } }
            .filter { $0.bytes > 0 }
            .sorted { ($1.bytes, $0.name) < ($0.bytes, $1.name) }
        return [
            title("memory") + bold(Self.right(Units.bytes(used), 9)) + "  " + bar(used, of: budget)
                + "  \(Units.percent(used, of: budget)) of \(Units.bytes(budget))"
        ]
            + owners.map { owner in
                "  " + Self.left(owner.name, Self.titleWidth - 2) + Self.right(Units.bytes(owner.bytes), 9) + "  "
                    + bar(owner.bytes, of: budget) + "  " + Units.percent(owner.bytes, of: budget)
            }
    }

    // MARK: the rest

    private func rest(_ report: StatsReport) -> [String] {
        var clients: [String] = []
        for (name, word) in [
            ("ferrite_connections_active", "connected"), ("ferrite_sidecar_connections_pinned", "pinned"),
            ("ferrite_sidecar_connections_refused_total", "refused"),
            ("ferrite_sidecar_protocol_errors_total", "protocol errors"),
        ] {
            if let value = report.value(name) { clients.append("\(Units.count(value)) \(word)") }
        }
        let process = report.process
        var lines = Self.wrap(clients).map { title($0.offset == 0 ? "clients" : "") + $0.line }
        lines.append(
            title("process")
                + "\(Units.bytes(process.residentBytes)) resident (peak \(Units.bytes(process.residentPeakBytes))), "
                + "\(Units.bytes(process.anonymousBytes)) anonymous, CPU \(Units.duration(seconds: process.cpuSeconds))"
        )
        if process.logLinesDropped > 0 {
            lines.append(title("log") + yellow("\(Units.count(process.logLinesDropped)) lines dropped"))
        }
        return lines
    }

    // MARK: drawing

    /// Eighths of a block, so that small shares show.
    private func bar(_ part: UInt64, of whole: UInt64) -> String {
        let width = Self.barWidth
        let share = whole == 0 ? 0 : min(1, Double(part) / Double(whole))
        var eighths = Int((share * Double(width * 8)).rounded())
        if part > 0 { eighths = max(1, eighths) }
        let blocks = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"]
        let filled = String(repeating: "█", count: eighths / 8) + blocks[eighths % 8]
        let text = filled + String(repeating: "·", count: width - filled.count)
        return colours ? "\u{1B}[36m\(text)\u{1B}[0m" : text
    }

    private func title(_ text: String) -> String { dim(Self.left(text, Self.titleWidth)) }
    private func bold(_ text: String) -> String { paint("1", text) }
    private func dim(_ text: String) -> String { paint("2", text) }
    private func red(_ text: String) -> String { paint("31", text) }
    private func green(_ text: String) -> String { paint("32", text) }
    private func yellow(_ text: String) -> String { paint("33", text) }

    private func paint(_ code: String, _ text: String) -> String {
        colours ? "\u{1B}[\(code)m\(text)\u{1B}[0m" : text
    }

    private static func left(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.count))
    }

    private static func right(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }

    private static func plural(_ count: UInt64, _ word: String, _ words: String? = nil) -> String {
        "\(Units.count(count)) \(count == 1 ? word : words ?? word + "s")"
    }

    /// Facts with commas between them, on as many lines as they need.
    private static func wrap(_ facts: [String]) -> [(offset: Int, line: String)] {
        var lines: [String] = []
        for fact in facts {
            if let last = lines.last, titleWidth + last.count + 2 + fact.count <= 80 {
                lines[lines.count - 1] += ", \(fact)"
            } else {
                lines.append(fact)
            }
        }
        return lines.enumerated().map { ($0.offset, $0.element) }
    }

    private static func withoutTrailingBlanks(_ line: String) -> String {
        var line = line
        while line.hasSuffix(" ") { line.removeLast() }
        return line
    }
}
