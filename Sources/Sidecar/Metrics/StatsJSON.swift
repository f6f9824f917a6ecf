/// The report as JSON, for ferritectl and for people with jq: the same numbers as /metrics, plus percentiles.
///
/// ferritectl reads this; a member may be added, none renamed.
enum StatsJSON {
    static let contentType = "application/json"

    static func render(_ report: SidecarReport) -> String {
        let facts = report.facts
        let upstream = report.snapshot.upstream
        return JSON.object([
            ("version", .string(facts.version)),
            ("uptime_seconds", .number((max(0, report.nowSeconds - facts.startSeconds) * 1_000).rounded() / 1_000)),
            ("mode", .string(facts.config.config.mode.rawValue)),
            ("listeners", .array(facts.listeners.map { .string($0) })),
            ("network", .object([("engine", .string(facts.networkName)), ("reason", .string(facts.networkReason))])),
            (
                "upstream",
                .object([
                    ("address", .string(upstream.address)),
                    ("state", .string(upstream.state.rawValue)),
                    ("tracking", .boolean(upstream.tracking)),
                    ("tracking_reason", .string(upstream.trackingReason)),
                    ("epoch", .integer(UInt64(upstream.epoch))),
                    ("reconnects", .integer(upstream.reconnects)),
                    ("read_timeouts", .integer(upstream.timeouts)),
                    ("heartbeats_late", .integer(upstream.heartbeatsLate)),
                    ("fences", .integer(upstream.fences)),
                    ("bypass", .boolean(upstream.isBypassed)),
                    ("breaker_open", .boolean(upstream.breakerIsOpen)),
                    ("breaker_opened", .integer(upstream.breakerOpened)),
                    ("last_error", .string(upstream.lastError)),
                    ("round_trip_seconds", .number(Double(upstream.roundTripNs) / 1e9)),
                    ("connections", .integer(UInt64(upstream.links))),
                ])
            ),
            (
                "prefetch",
                .object([
                    ("state", .string(upstream.prefetch.isOn ? upstream.prefetch.state.rawValue : "off")),
                    ("names", .integer(upstream.prefetch.names)), ("fetched", .integer(upstream.prefetch.fetched)),
                    ("not_kept", .integer(upstream.prefetch.notKept)),
                    ("pages", .integer(upstream.prefetch.pages)), ("errors", .integer(upstream.prefetch.errors)),
                ])
            ),
            (
                "journal",
                .object([
                    ("on", .boolean(upstream.journal.isOn)),
                    ("bytes", .integer(UInt64(clamping: upstream.journal.bytes))),
                    ("batches", .integer(upstream.journal.batches)), ("syncs", .integer(upstream.journal.syncs)),
                    ("failures", .integer(upstream.journal.failures)),
                    ("restored", .integer(upstream.journal.restored)),
                ])
            ),
            (
                "process",
                .object([
                    ("resident_bytes", .integer(report.process.residentBytes)),
                    ("resident_peak_bytes", .integer(report.process.residentPeakBytes)),
                    ("anonymous_bytes", .integer(report.process.anonymousBytes)),
                    ("cpu_seconds", .number(report.process.cpuSeconds)),
                    ("start_time_seconds", .number(report.process.startSeconds)),
                    ("log_lines_dropped", .integer(report.logLinesDropped)),
                ])
            ),
            (
                "commands",
                .array(
                    report.snapshot.calls.map {
                        .object([
                            ("name", .string($0.name)), ("family", .string($0.family)),
                            ("ok", .integer($0.answered)), ("error", .integer($0.failed)),
                        ])
                    })
            ),
            ("metrics", .array(report.table.rows.compactMap { metric($0, report) } + commands(report))),
            ("config", .object(config(facts.config, report))),
        ]).text + "\n"
    }

    private static func metric(_ row: MetricTable.Row, _ report: SidecarReport) -> JSON? {
        var members: [(String, JSON)] = [("name", .string(row.name)), ("labels", .object(labels(row.labels)))]
        let values = report.snapshot.values
        switch row.kind {
        case .counter, .gauge:
            guard row.offset >= 0, row.offset < values.count else { return nil }
            let value = values[row.offset]
            members.append(
                row.isNanoseconds ? ("value_seconds", .number(Double(value) / 1e9)) : ("value", .integer(value)))
        case .histogram:
            guard let histogram = Histogram(row, of: values, report.table) else { return nil }
            members += [
                ("count", .integer(histogram.count)),
                ("sum_seconds", .number(Double(histogram.sumNs) / 1e9)),
                ("mean_seconds", .number(histogram.meanNs / 1e9)),
                ("p50_seconds", .number(histogram.percentileNs(0.5) / 1e9)),
                ("p99_seconds", .number(histogram.percentileNs(0.99) / 1e9)),
                ("p999_seconds", .number(histogram.percentileNs(0.999) / 1e9)),
            ]
        }
        return .object(members)
    }

    private static func commands(_ report: SidecarReport) -> [JSON] {
        report.snapshot.families.flatMap { family, outcomes in
            zip(report.table.outcomes, outcomes).map { outcome, count in
                .object([
                    ("name", .string(PrometheusText.commands)),
                    ("labels", .object([("family", .string(family)), ("outcome", .string(outcome))])),
                    ("value", .integer(count)),
                ])
            }
        }
    }

    /// `result="same",x="y"` of our own table, where no value holds a quote or a comma.
    private static func labels(_ text: String) -> [(String, JSON)] {
        text.split(separator: ",").compactMap { label in
            let parts = label.split(separator: "=", maxSplits: 1)
            guard parts.count == 2 else { return nil }
            return (String(parts[0]), .string(parts[1].filter { $0 != "\"" }))
        }
    }

    /// Secrets are left out. local_memory follows the container's limit.
    private static func config(_ resolved: ResolvedConfig, _ report: SidecarReport) -> [(String, JSON)] {
        var resolved = resolved
        if let row = report.table.rows.first(where: { $0.name == "ferrite_memory_max_bytes" }),
            report.snapshot.values.indices.contains(row.offset)
        {
            resolved.config.localMemory = report.snapshot.values[row.offset]
        }
        return ConfigKey.all.filter { !$0.isSecret && !$0.namesKey }.map { key in
            let document = TOMLDocument(Array("value = \(key.show(resolved.config))".utf8))
            return (key.name, document.entries.first.map { json($0.value) } ?? .raw("null"))
        }
    }

    private static func json(_ value: TOMLValue) -> JSON {
        switch value {
        case .string(let text), .dateTime(let text): .string(text)
        case .integer(let number): .raw(String(number))
        case .float(let number): .number(number)
        case .boolean(let boolean): .boolean(boolean)
        case .array(let values): .array(values.map(json))
        case .table(let entries): .object(entries.map { ($0.path.joined(separator: "."), json($0.value)) })
        }
    }
}
