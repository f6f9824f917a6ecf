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
        var trackingReason: String
        var epoch: UInt64
        var reconnects: UInt64
        var lastError: String
        var roundTripSeconds: Double
        var connections: UInt64
    }

    struct Process: Decodable, Sendable {
        var residentBytes: UInt64
        var residentPeakBytes: UInt64
        var anonymousBytes: UInt64
        var cpuSeconds: Double
        var logLinesDropped: UInt64
    }

    struct Prefetch: Decodable, Sendable {
        /// "off", or what it does.
        var state: String
        var names: UInt64
        var fetched: UInt64
        var errors: UInt64
    }

    struct Journal: Decodable, Sendable {
        var on: Bool
        var bytes: UInt64
        var batches: UInt64
        var failures: UInt64
    }

    /// A counter or gauge has a value, a histogram the others.
    struct Metric: Decodable, Sendable {
        var name: String
        var labels: [String: String]
        var value: UInt64?
        var count: UInt64?
        var meanSeconds: Double?
        var p50Seconds: Double?
        var p99Seconds: Double?
        var p999Seconds: Double?
    }

    var version: String
    var uptimeSeconds: Double
    var mode: String
    var listeners: [String]
    var network: Network
    var upstream: Upstream
    var prefetch: Prefetch?
    var journal: Journal?
    var process: Process
    var metrics: [Metric]

    init(json: String) throws(StatsFailure) {
        do {
            let decoder = JSONDecoder()
            decoder.keyDecodingStrategy = .convertFromSnakeCase
            self = try decoder.decode(StatsReport.self, from: Data(json.utf8))
        } catch {
            throw StatsFailure(
                sentence:
                    "the answer is not what a sidecar of version \(Version.current) says (\(error)); ferritectl stats --json shows it as it is"
            )
        }
    }

    /// A counter or gauge; nil when the sidecar does not have it.
    func value(_ name: String, _ label: String? = nil, _ is: String? = nil) -> UInt64? {
        metrics.first { $0.name == name && (label == nil || $0.labels[label ?? ""] == `is`) }?.value
    }

    /// All rows of a name, in the sidecar's order.
    func rows(_ name: String) -> [Metric] { metrics.filter { $0.name == name } }

    /// Sums of a name's rows by one label, in the sidecar's order.
    func sums(_ name: String, by label: String) -> [(label: String, value: UInt64)] {
        var sums: [(label: String, value: UInt64)] = []
        for row in rows(name) {
            guard let value = row.value, let label = row.labels[label] else { continue }
            if let known = sums.firstIndex(where: { $0.label == label }) {
                sums[known].value &+= value
            } else {
                sums.append((label, value))
            }
        }
        return sums
    }
}
