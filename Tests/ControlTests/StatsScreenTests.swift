import Foundation
import Testing

@testable import Control

@Suite("ferritectl stats")
struct StatsScreenTests {
    static let sample = """
        {"version":"0.1.0","uptime_seconds":7985.5,"mode":"read-through","listeners":["127.0.0.1:6379","/run/f.sock"],
        "network":{"engine":"epoll","reason":"io_uring_setup: Operation not permitted"},
        "upstream":{"address":"redis:6379","state":"up","tracking":true,"tracking_reason":"","epoch":2,"reconnects":1,
        "last_error":"connect: Connection refused","round_trip_seconds":8.34e-05,"connections":3},
        "process":{"resident_bytes":72351744,"resident_peak_bytes":73400320,"anonymous_bytes":3250586,"cpu_seconds":12.3,
        "start_time_seconds":1,"log_lines_dropped":0},
        "metrics":[
        {"name":"ferrite_sidecar_commands_total","labels":{"family":"string","outcome":"hit"},"value":1234567},
        {"name":"ferrite_sidecar_commands_total","labels":{"family":"string","outcome":"passed"},"value":12000},
        {"name":"ferrite_sidecar_commands_total","labels":{"family":"string","outcome":"error"},"value":0},
        {"name":"ferrite_sidecar_commands_total","labels":{"family":"hash","outcome":"passed"},"value":345},
        {"name":"ferrite_keyspace_hits_total","labels":{},"value":1234567},
        {"name":"ferrite_keyspace_misses_total","labels":{},"value":12345},
        {"name":"ferrite_keys","labels":{"database":"0"},"value":4711},
        {"name":"ferrite_evicted_keys_total","labels":{},"value":0},
        {"name":"ferrite_connections_active","labels":{},"value":12},
        {"name":"ferrite_command_duration_seconds","labels":{"outcome":"hit"},"count":1234567,"sum_seconds":1.5,
        "mean_seconds":1.2e-06,"p50_seconds":1.0e-06,"p99_seconds":4.2e-06,"p999_seconds":1.9e-05},
        {"name":"ferrite_command_duration_seconds","labels":{"outcome":"miss"},"count":0,"sum_seconds":0,
        "mean_seconds":0,"p50_seconds":0,"p99_seconds":0,"p999_seconds":0},
        {"name":"ferrite_memory_used_bytes","labels":{},"value":64172851},
        {"name":"ferrite_memory_max_bytes","labels":{},"value":134217728},
        {"name":"ferrite_sidecar_memory_bytes","labels":{"owner":"base"},"value":13841203},
        {"name":"ferrite_sidecar_memory_bytes","labels":{"owner":"slabs"},"value":50331648},
        {"name":"ferrite_sidecar_memory_bytes","labels":{"owner":"swift"},"value":0}],
        "config":{}}
        """

    @Test("shows one sidecar at a glance")
    func golden() throws {
        var screen = StatsScreen(colours: false)
        #expect(
            screen.render(try StatsReport(json: Self.sample)) == """
                ferrite sidecar 0.1.0  read-through, up 2h 13m
                listens    127.0.0.1:6379, /run/f.sock
                upstream   redis:6379  up, tracking on, round trip 83.4 us
                           3 connections, epoch 2, 1 reconnect, last error: connect: Connection refused
                network    epoll  (io_uring_setup: Operation not permitted)

                hit ratio  99.0%  ███████████████████████▊  1,234,567 hit, 12,345 missed
                keys       4,711 held, 0 evicted
                commands   1,234,567 hit, 12,345 passed

                latency            count       mean        p50        p99      p99.9
                hit            1,234,567    1.20 us    1.00 us    4.20 us    19.0 us

                memory      61.2 MiB  ███████████▌············  47.8% of 128 MiB
                  slabs     48.0 MiB  █████████···············  37.5%
                  base      13.2 MiB  ██▌·····················  10.3%

                clients    12 connected
                process    69.0 MiB resident (peak 70.0 MiB), 3.10 MiB anonymous, CPU 12.3 s

                """)
    }

    @Test("the second report shows rates")
    func rates() throws {
        var screen = StatsScreen(colours: false)
        _ = screen.render(try StatsReport(json: Self.sample))
        let later = Self.sample.replacing("7985.5", with: "7987.5").replacing(
            "\"hit\"},\"value\":1234567", with: "\"hit\"},\"value\":1236567")
        let text = screen.render(try StatsReport(json: later))
        #expect(text.contains("1,236,567 hit (1,000/s), 12,345 passed (0/s)"))
    }

    @Test("trouble is named: a lost upstream, no tracking and why, dropped log lines")
    func trouble() throws {
        var screen = StatsScreen(colours: false)
        let text = screen.render(
            try StatsReport(
                json: Self.sample.replacing("\"state\":\"up\"", with: "\"state\":\"unreachable\"")
                    .replacing(
                        "\"tracking\":true,\"tracking_reason\":\"\"",
                        with: "\"tracking\":false,\"tracking_reason\":\"ERR unknown subcommand\""
                    )
                    .replacing("\"log_lines_dropped\":0", with: "\"log_lines_dropped\":5")))
        #expect(text.contains("unreachable, tracking off"))
        #expect(text.contains("without tracking: ERR unknown subcommand"))
        #expect(text.contains("log        5 lines dropped"))
    }

    @Test("colours change nothing but colours")
    func colours() throws {
        var plain = StatsScreen(colours: false)
        var coloured = StatsScreen(colours: true)
        let report = try StatsReport(json: Self.sample)
        let text = coloured.render(report)
        #expect(text.contains("\u{1B}["))
        #expect(text.replacing(/\u{1B}\[[0-9]*m/, with: "") == plain.render(report))
    }

    @Test("metrics that a sidecar does not have are left out; what is not a report is refused kindly")
    func versions() throws {
        var screen = StatsScreen(colours: false)
        let cut = Self.sample.replacing(/"metrics":\[[^\]]*\]/.dotMatchesNewlines(), with: "\"metrics\":[]")
        #expect(screen.render(try StatsReport(json: cut)).contains("upstream"))
        for text in ["", "{}", "<html>", "[1]"] {
            do throws(StatsFailure) {
                _ = try StatsReport(json: text)
                Issue.record("taken: \(text)")
            } catch {
                #expect(error.sentence.contains("--json"))
            }
        }
    }

    @Test(
        "a URL may be short",
        arguments: [
            ("http://127.0.0.1:9091", "127.0.0.1", 9091), ("localhost:1", "localhost", 1), ("http://pod/", "pod", 9091),
            ("http://[::1]:7/stats", "::1", 7), ("[::1]", "::1", 9091),
        ] as [(String, String, UInt16)])
    func urls(_ url: String, _ host: String, _ port: UInt16) throws {
        let server = try StatsServer(url: url)
        #expect(server.host == host && server.port == port)
    }

    @Test("a wrong URL says what is right", arguments: ["https://x", "http://:1", "x:0", "x:port", ""])
    func wrongURLs(_ url: String) {
        #expect(throws: StatsFailure.self) { try StatsServer(url: url) }
    }

    @Test("shows the queue, its journal, the prefetch and the audit where there is one")
    func more() throws {
        var screen = StatsScreen(colours: false)
        let json = Self.sample.replacingOccurrences(
            of: "\"process\":",
            with: """
                "prefetch":{"state":"running","names":4000,"fetched":1234,"pages":40,"errors":1},
                "journal":{"on":true,"bytes":12582912,"batches":1,"syncs":1,"failures":0,"restored":0},"process":
                """
        ).replacingOccurrences(
            of: "\"metrics\":[",
            with: """
                "metrics":[{"name":"ferrite_sidecar_write_behind_queued","labels":{},"value":12},
                {"name":"ferrite_sidecar_write_behind_bytes","labels":{},"value":2048},
                {"name":"ferrite_sidecar_write_behind_total","labels":{"outcome":"confirmed"},"value":99},
                {"name":"ferrite_sidecar_audit_total","labels":{"result":"same"},"value":1000},
                {"name":"ferrite_sidecar_audit_total","labels":{"result":"stale"},"value":0},
                """)
        let lines = screen.render(try StatsReport(json: json)).split(separator: "\n").map(String.init)
        #expect(lines.contains("queue      12 acknowledged and not upstream, 2.00 KiB; 99 carried out, 0 given up"))
        #expect(lines.contains("journal    on, 12.0 MiB, 1 batch, 0 failures"))
        #expect(lines.contains("prefetch   running, 1,234 of 4,000 keys, 1 error"))
        #expect(lines.contains("audit      1,000 same, 0 stale"))
    }
}
