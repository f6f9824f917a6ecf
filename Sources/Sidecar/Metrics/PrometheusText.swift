/// The report in Prometheus' text format, version 0.0.4.
struct PrometheusText {
    static let commands = "ferrite_sidecar_commands_total"
    static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    private var out = ""
    /// Names whose HELP and TYPE are written: once a name, wherever its rows stand.
    private var described: Set<String> = []

    static func render(_ report: SidecarReport) -> String {
        var text = PrometheusText()
        text.out.reserveCapacity(16384)
        text.fastPath(report)
        text.calls(report)
        text.upstream(report)
        text.process(report)
        return text.out
    }

    private mutating func fastPath(_ report: SidecarReport) {
        let values = report.snapshot.values
        /* Rows of one name stand together in the table, as the format demands. */
        for row in report.table.rows {
            describe(row.name, row.kind, row.help)
            switch row.kind {
            case .counter, .gauge:
                guard row.offset >= 0, row.offset < values.count else { continue }
                let value = values[row.offset]
                sample(row.name, row.labels, row.isNanoseconds ? Self.seconds(value) : String(value))
            case .histogram:
                guard let histogram = Histogram(row, of: values, report.table) else { continue }
                /* Most sidecars never see some outcomes, and thirty series each would be scraped for nothing. */
                if !row.labels.isEmpty, histogram.count == 0 { continue }
                write(histogram, row)
            }
        }
    }

    private mutating func calls(_ report: SidecarReport) {
        describe(Self.commands, .counter, "Commands answered, by family (the group in COMMAND DOCS) and outcome")
        for (family, outcomes) in report.snapshot.families {
            for (outcome, count) in zip(report.table.outcomes, outcomes) {
                sample(Self.commands, "family=\"\(family)\",outcome=\"\(outcome)\"", String(count))
            }
        }
        let name = "ferrite_commands_total"
        describe(name, .counter, "Commands answered, by name")
        for call in report.snapshot.calls {
            sample(name, "command=\"\(call.name)\",status=\"ok\"", String(call.answered))
            sample(name, "command=\"\(call.name)\",status=\"error\"", String(call.failed))
        }
    }

    /// Cumulative counts at every octave, in seconds.
    private mutating func write(_ histogram: Histogram, _ row: MetricTable.Row) {
        let separator = row.labels.isEmpty ? "" : ","
        var total: UInt64 = 0
        for (index, (bound, count)) in zip(histogram.boundsNs, histogram.counts).enumerated() {
            total &+= count
            guard index.isMultiple(of: 4), bound != .max else { continue }
            sample(row.name + "_bucket", "\(row.labels)\(separator)le=\"\(Self.seconds(bound))\"", String(total))
        }
        sample(row.name + "_bucket", "\(row.labels)\(separator)le=\"+Inf\"", String(total))
        sample(row.name + "_sum", row.labels, Self.seconds(histogram.sumNs))
        sample(row.name + "_count", row.labels, String(total))
    }

    private mutating func upstream(_ report: SidecarReport) {
        let upstream = report.snapshot.upstream
        gauge(
            "ferrite_sidecar_upstream_up", "1 while the tracked link is up and answers",
            upstream.state == .up ? "1" : "0")
        describe("ferrite_sidecar_upstream_state", .gauge, "1 for the state the upstream is in")
        for state in UpstreamStatus.State.allCases {
            sample("ferrite_sidecar_upstream_state", "state=\"\(state.rawValue)\"", upstream.state == state ? "1" : "0")
        }
        gauge(
            "ferrite_sidecar_tracking",
            "1 while the upstream announces changes (CLIENT TRACKING); 0: freshness by ttl_default only",
            upstream.tracking ? "1" : "0")
        counter(
            "ferrite_sidecar_upstream_reconnects_total", "Times the tracked link was made again after a loss",
            String(upstream.reconnects))
        describe(
            "ferrite_sidecar_upstream_failures_total", .counter,
            "Attempts to reach the upstream that failed, and losses of the tracked link, by kind")
        for failure in UpstreamFailure.allCases {
            sample(
                "ferrite_sidecar_upstream_failures_total", "kind=\"\(failure.rawValue)\"",
                String(upstream.failures[failure]))
        }
        counter(
            "ferrite_sidecar_read_timeouts_total", "Reads that were not answered within read_timeout",
            String(upstream.timeouts))
        gauge(
            "ferrite_sidecar_breaker_open",
            "1 while reads are not answered within read_timeout and only few are sent",
            upstream.breakerIsOpen ? "1" : "0")
        counter(
            "ferrite_sidecar_breaker_opened_total", "Times the breaker has opened", String(upstream.breakerOpened))
        counter(
            "ferrite_sidecar_heartbeats_late_total", "Heartbeats of the upstream that were late",
            String(upstream.heartbeatsLate))
        counter(
            "ferrite_sidecar_fences_total", "PINGs sent so that what came by other links could be delivered",
            String(upstream.fences))
        gauge(
            "ferrite_sidecar_bypass", "1 while nothing is served from the cache (ferritectl bypass on)",
            upstream.isBypassed ? "1" : "0")
        let prefetch = upstream.prefetch
        gauge(
            "ferrite_sidecar_prefetch_running", "1 while keys are fetched ahead", prefetch.state == .running ? "1" : "0"
        )
        gauge("ferrite_sidecar_prefetch_names", "Keys that the last prefetch was told of", String(prefetch.names))
        gauge("ferrite_sidecar_prefetch_fetched", "Keys that it has fetched, or had", String(prefetch.fetched))
        gauge("ferrite_sidecar_prefetch_scans", "SCAN calls that it took", String(prefetch.pages))
        gauge("ferrite_sidecar_prefetch_errors", "Of which failed", String(prefetch.errors))
        let journal = upstream.journal
        gauge(
            "ferrite_sidecar_journal_on", "1 while acknowledged writes are noted in the journal",
            journal.isOn ? "1" : "0")
        gauge("ferrite_sidecar_journal_bytes", "Bytes of the journal's files", String(journal.bytes))
        counter(
            "ferrite_sidecar_journal_batches_total", "Batches of acknowledgements written to the journal",
            String(journal.batches))
        counter("ferrite_sidecar_journal_syncs_total", "Calls of fdatasync for the journal", String(journal.syncs))
        counter(
            "ferrite_sidecar_journal_failures_total",
            "Times that the journal could not be written, or its files not removed; it is tried every second",
            String(journal.failures))
        counter(
            "ferrite_sidecar_journal_restored_total", "Writes of an earlier process that were found in the journal",
            String(journal.restored))
        gauge("ferrite_sidecar_upstream_epoch", "Times a tracked link has come up", String(upstream.epoch))
        gauge(
            "ferrite_sidecar_upstream_round_trip_seconds", "Round trip of the last PING, 0 before the first",
            Self.seconds(upstream.roundTripNs))
        gauge("ferrite_sidecar_upstream_connections", "Open connections to the upstream", String(upstream.links))
    }

    private mutating func process(_ report: SidecarReport) {
        let facts = report.facts
        describe("ferrite_sidecar_info", .gauge, "Always 1; the labels tell")
        sample(
            "ferrite_sidecar_info",
            "version=\(Self.quote(facts.version)),network=\(Self.quote(facts.networkName)),network_reason=\(Self.quote(facts.networkReason)),mode=\(Self.quote(facts.config.config.mode.rawValue)),tracking=\(Self.quote(facts.config.config.tracking.rawValue))",
            "1")
        counter(
            "ferrite_sidecar_log_lines_dropped_total", "Log lines that could not be written in time",
            String(report.logLinesDropped))
        gauge("process_resident_memory_bytes", "Resident memory size in bytes", String(report.process.residentBytes))
        gauge(
            "ferrite_sidecar_resident_memory_peak_bytes", "The most that was ever resident",
            String(report.process.residentPeakBytes))
        gauge(
            "ferrite_sidecar_anonymous_memory_bytes", "Resident memory that no file backs",
            String(report.process.anonymousBytes))
        counter(
            "process_cpu_seconds_total", "Total user and system CPU time spent in seconds",
            "\(report.process.cpuSeconds)")
        gauge(
            "process_start_time_seconds", "Start time of the process since unix epoch in seconds",
            "\(report.process.startSeconds)")
    }

    private mutating func gauge(_ name: String, _ help: String, _ value: String) {
        describe(name, .gauge, help)
        sample(name, "", value)
    }

    private mutating func counter(_ name: String, _ help: String, _ value: String) {
        describe(name, .counter, help)
        sample(name, "", value)
    }

    private mutating func describe(_ name: String, _ kind: MetricTable.Kind, _ help: String) {
        guard described.insert(name).inserted else { return }
        out += "# HELP \(name) \(help)\n# TYPE \(name) \(kind.rawValue)\n"
    }

    private mutating func sample(_ name: String, _ labels: String, _ value: String) {
        out += labels.isEmpty ? "\(name) \(value)\n" : "\(name){\(labels)} \(value)\n"
    }

    private static func seconds(_ ns: UInt64) -> String { "\(Double(ns) / 1e9)" }

    private static func quote(_ text: String) -> String {
        var out = "\""
        for character in text {
            switch character {
            case "\\": out += "\\\\"
            case "\"": out += "\\\""
            case "\n": out += "\\n"
            default: out.append(character)
            }
        }
        return out + "\""
    }
}
