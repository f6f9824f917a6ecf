#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// The sidecar's /stats as values. What an older or newer sidecar does not have is left out of the screen.
struct StatsReport: Decodable, Sendable {
    struct Network: Decodable, Sendable {
        var engine: String
        var reason: String
    }

    struct Upstream: Decodable, Sendable {
        var address: String
        var state: String
        var tracking: Bool
        var tracking_reason: String
        var epoch: UInt64
        var reconnects: UInt64
        var last_error: String
        var round_trip_seconds: Double
        var connections: UInt64
    }

    struct Process: Decodable, Sendable {
        var resident_bytes: UInt64
        var resident_peak_bytes: UInt64
        var anonymous_bytes: UInt64
        var cpu_seconds: Double
        var log_lines_dropped: UInt64
    }

    /// A counter or gauge has a value, a histogram the others.
    struct Metric: Decodable, Sendable {
        var name: String
        var labels: [String: String]
        var value: UInt64?
        var count: UInt64?
        var mean_seconds: Double?
        var p50_seconds: Double?
        var p99_seconds: Double?
        var p999_seconds: Double?
    }

    var version: String
    var uptime_seconds: Double
    var mode: String
    var listeners: [String]
    var network: Network
    var upstream: Upstream
    var process: Process
    var metrics: [Metric]

    init(json: String) throws(StatsFailure) {
        do {
            self = try JSONDecoder().decode(StatsReport.self, from: Data(json.utf8))
        } catch {
            throw StatsFailure(sentence: "the answer is not what a sidecar of version \(Version.current) says (\(error)); ferritectl stats --json shows it as it is")
        }
    }

    /// A counter or gauge; nil when the sidecar does not have it.
    func value(_ name: String, _ label: String? = nil, _ is: String? = nil) -> UInt64? {
        metrics.first { $0.name == name && (label == nil || $0.labels[label ?? ""] == `is`) }?.value
    }

    /// All rows of a name, in the sidecar's order.
    func rows(_ name: String) -> [Metric] { metrics.filter { $0.name == name } }
}
