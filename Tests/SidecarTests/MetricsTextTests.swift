import Foundation
import Testing

@testable import Sidecar

/// A small table and a snapshot that fits it.
enum SampleReport {
    static let bounds: [UInt64] = (0..<108).map { (bucket: UInt64) -> UInt64 in
        if bucket == 107 { return .max }
        return (4 + bucket % 4) << (bucket / 4 + 6)
    }

    static let table = MetricTable(
        rows: [
            .init(name: "commands_total", labels: "way=\"hit\"", help: "Commands", kind: .counter, offset: 0),
            .init(name: "commands_total", labels: "way=\"miss\"", help: "", kind: .counter, offset: 1),
            .init(name: "keys", labels: "", help: "Keys", kind: .gauge, offset: 2),
            .init(name: "seconds", labels: "way=\"hit\"", help: "Time", kind: .histogram, offset: 3),
        ], valueCount: 3 + 109, bucketBoundsNs: bounds, outcomes: ["hit", "passed", "error"])

    static func report(_ flags: [ConfigLoader.Flag] = []) throws -> SidecarReport {
        var values = [UInt64](repeating: 0, count: table.valueCount)
        values[0] = 12
        values[1] = 3
        values[2] = 7
        values[3 + 0] = 5  // below 256 ns
        values[3 + 1] = 2  // 256 to 320 ns
        values[3 + 107] = 1  // beyond all bounds
        values[3 + 108] = 2_500_000_000
        var loader = ConfigLoader()
        loader.flags = [.init(name: "--upstream", key: "upstream", text: "redis:6379")] + flags
        return SidecarReport(
            snapshot: StatsSnapshot(
                values: values,
                upstream: UpstreamStatus(
                    address: "redis:6379", state: .up, tracking: true, epoch: 2, reconnects: 1,
                    lastError: "connect: refused",
                    roundTripNs: 83_000, links: 3),
                calls: [
                    CommandCalls(name: "config|get", family: "server", outcomes: [0, 5, 1]),
                    CommandCalls(name: "get", family: "string", outcomes: [7, 0, 0]),
                    CommandCalls(name: "getset", family: "string", outcomes: [1, 2, 0]),
                ], takenAtNs: 1),
            table: table,
            process: ProcessNumbers(
                residentBytes: 1024, residentPeakBytes: 2048, anonymousBytes: 512, cpuSeconds: 0.5, startSeconds: 100),
            facts: SidecarFacts(
                version: "1.2.3", config: try loader.load(), listeners: ["127.0.0.1:6379"], networkName: "epoll",
                networkReason: "io_uring_setup: \"denied\"", startSeconds: 100),
            nowSeconds: 160.25, logLinesDropped: 4)
    }
}

@Suite("the pages")
struct MetricsTextTests {
    @Test("Prometheus text describes each name once and cumulates histograms in seconds at octaves")
    func prometheus() throws {
        let lines = PrometheusText.render(try SampleReport.report()).split(separator: "\n").map(String.init)
        #expect(
            Array(lines.prefix(11)) == [
                "# HELP commands_total Commands", "# TYPE commands_total counter", "commands_total{way=\"hit\"} 12",
                "commands_total{way=\"miss\"} 3", "# HELP keys Keys", "# TYPE keys gauge", "keys 7",
                "# HELP seconds Time",
                "# TYPE seconds histogram", "seconds_bucket{way=\"hit\",le=\"2.56e-07\"} 5",
                "seconds_bucket{way=\"hit\",le=\"5.12e-07\"} 7",
            ])
        let buckets = lines.filter { $0.hasPrefix("seconds_bucket") }
        #expect(buckets.count == 28)
        #expect(buckets[26] == "seconds_bucket{way=\"hit\",le=\"17.179869184\"} 7")
        #expect(buckets[27] == "seconds_bucket{way=\"hit\",le=\"+Inf\"} 8")
        #expect(lines.contains("seconds_sum{way=\"hit\"} 2.5"))
        #expect(lines.contains("seconds_count{way=\"hit\"} 8"))
        for line in [
            "ferrite_sidecar_info{version=\"1.2.3\",network=\"epoll\",network_reason=\"io_uring_setup: \\\"denied\\\"\",mode=\"read-through\",tracking=\"auto\"} 1",
            "ferrite_sidecar_upstream_up 1",
            "ferrite_sidecar_tracking 1", "ferrite_sidecar_upstream_reconnects_total 1",
            "ferrite_sidecar_upstream_state{state=\"up\"} 1",
            "ferrite_sidecar_upstream_state{state=\"unreachable\"} 0",
            "ferrite_sidecar_upstream_round_trip_seconds 8.3e-05",
            "process_resident_memory_bytes 1024", "process_cpu_seconds_total 0.5", "process_start_time_seconds 100.0",
            "ferrite_sidecar_log_lines_dropped_total 4",
            "ferrite_commands_total{command=\"config|get\",status=\"ok\"} 5",
            "ferrite_commands_total{command=\"config|get\",status=\"error\"} 1",
            "ferrite_sidecar_commands_total{family=\"server\",outcome=\"error\"} 1",
            "ferrite_sidecar_commands_total{family=\"string\",outcome=\"hit\"} 8",
            "ferrite_sidecar_commands_total{family=\"string\",outcome=\"passed\"} 2",
            "ferrite_sidecar_commands_total{family=\"string\",outcome=\"error\"} 0",
        ] {
            #expect(lines.contains(line), "\(line)")
        }
        Self.checkFormat(lines)
    }

    @Test("the real table obeys the format as well")
    func realTable() throws {
        var report = try SampleReport.report()
        report.table = .fastPath
        #expect(report.table.rows.count > 40)
        #expect(report.table.bucketBoundsNs == SampleReport.bounds)
        report.snapshot.values = (0..<UInt64(report.table.valueCount)).map { $0 }
        let text = PrometheusText.render(report)
        Self.checkFormat(text.split(separator: "\n").map(String.init))
        _ = try JSONSerialization.jsonObject(with: Data(StatsJSON.render(report).utf8))
    }

    /// What a scraper insists on: help and type before a name's samples, once, and samples of a name together.
    private static func checkFormat(_ lines: [String]) {
        var seen: Set<String> = []
        var current = ""
        var samples: Set<String> = []
        for line in lines {
            if line.hasPrefix("# ") {
                let words = line.split(separator: " ", maxSplits: 3)
                #expect(words.count == 4, "\(line)")
                if words[1] == "HELP" {
                    #expect(seen.insert(String(words[2])).inserted, "described twice: \(line)")
                    current = String(words[2])
                } else {
                    #expect(words[2] == current, "\(line)")
                }
                continue
            }
            let name = line.prefix { $0 != "{" && $0 != " " }
            #expect(
                name == current || ["_bucket", "_sum", "_count"].contains { current + $0 == name },
                "not below its help: \(line)")
            #expect(
                samples.insert(String(line.prefix(upTo: line.lastIndex(of: " ") ?? line.endIndex))).inserted,
                "given twice: \(line)")
            #expect(Double(line.split(separator: " ").last ?? "") != nil, "\(line)")
        }
    }

    @Test("a snapshot that is too short leaves metrics out instead of reading past it")
    func shortSnapshot() throws {
        var report = try SampleReport.report()
        report.snapshot.values = [1]
        let text = PrometheusText.render(report)
        #expect(text.contains("commands_total{way=\"hit\"} 1\n"))
        #expect(!text.contains("seconds_bucket"))
        _ = try JSONSerialization.jsonObject(with: Data(StatsJSON.render(report).utf8))
    }

    @Test("/stats is JSON with percentiles, the upstream, the network's reason and settings, but no secret")
    func json() throws {
        let report = try SampleReport.report([
            .init(name: "--set", key: "password", text: "hunter2"),
            .init(name: "--set", key: "prefetch.patterns", text: "a:*,b\"\\"),
            .init(name: "--set", key: "rules", text: "[{pattern = \"u:*\", ttl = 60, cache = false}]"),
        ])
        let text = StatsJSON.render(report)
        #expect(!text.contains("hunter2"))
        let object = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
        #expect(object["version"] as? String == "1.2.3")
        #expect(object["uptime_seconds"] as? Double == 60.25)
        #expect((object["network"] as? [String: String])?["reason"] == "io_uring_setup: \"denied\"")
        let upstream = try #require(object["upstream"] as? [String: Any])
        #expect(upstream["state"] as? String == "up")
        #expect(upstream["tracking"] as? Bool == true)
        let metrics = try #require(object["metrics"] as? [[String: Any]])
        #expect(metrics.count == 4 + 6)
        #expect(metrics[3]["count"] as? Int == 8)
        #expect((metrics[3]["p50_seconds"] as? Double ?? 0) < 256e-9)
        let config = try #require(object["config"] as? [String: Any])
        #expect(config["port"] as? Int == 6379)
        #expect(config["local_memory"] as? String == "128mb")
        #expect(config["prefetch.patterns"] as? [String] == ["a:*", "b\"\\"])
        let rule = try #require((config["rules"] as? [[String: Any]])?.first)
        #expect(
            rule["pattern"] as? String == "u:*" && rule["ttl"] as? String == "1m" && rule["cache"] as? Bool == false)
        #expect(config["password"] == nil)
        #expect(Set(config.keys) == Set(ConfigKey.all.filter { !$0.isSecret && !$0.namesKey }.map(\.name)))
    }

    @Test("percentiles lie in the right bucket, evened out inside it")
    func percentiles() throws {
        var values = [UInt64](repeating: 0, count: 3 + 109)
        let row = SampleReport.table.rows[3]
        func histogram() throws -> Histogram { try #require(Histogram(row, of: values, SampleReport.table)) }
        #expect(try histogram().percentileNs(0.99) == 0)
        #expect(try histogram().meanNs == 0)
        values[3 + 4] = 100  // 448 to 512 ns
        values[3 + 108] = 100 * 480
        #expect(try histogram().percentileNs(0.5) == 480)
        #expect(try histogram().percentileNs(1) == 512)
        #expect(try histogram().meanNs == 480)
        values[3 + 107] = 900
        #expect(try histogram().percentileNs(0.99) == Double(SampleReport.bounds[106]))
        values[3] = .max
        values[4] = .max
        #expect(try histogram().percentileNs(0.999) > 0)
    }

    @Test("the process's own numbers are read from /proc")
    func process() {
        var numbers = ProcessNumbers()
        numbers.take(status: "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nRssAnon:\t 12 kB\nVmRSS\n")
        #expect(numbers == ProcessNumbers(residentBytes: 1 << 20, residentPeakBytes: 2 << 20, anonymousBytes: 12 << 10))
        let real = ProcessNumbers.read(startSeconds: 1)
        #expect(real.residentBytes > 1 << 20 && real.residentPeakBytes >= real.residentBytes && real.cpuSeconds > 0)
    }
}
