/// The TCP ports that a pod's containers are seen to listen on, since they share one network: those that they name, that
/// their probes ask, and that Prometheus is told.
struct PodPorts {
    private var owners: [Int: String] = [:]

    init(_ pod: JSON) {
        let containers = (pod["spec"]?["initContainers"]?.elements ?? []) + (pod["spec"]?["containers"]?.elements ?? [])
        for container in containers {
            for port in container["ports"]?.elements ?? [] where (port["protocol"]?.string ?? "TCP") == "TCP" {
                guard let number = port["containerPort"]?.integer.flatMap({ Int(exactly: $0) }) else { continue }
                owners[number] = container["name"]?.string ?? "?"
            }
            for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
                for way in ["httpGet", "tcpSocket", "grpc"] {
                    let port = container[probe]?[way]?["port"]?.integer.flatMap { Int(exactly: $0) }
                    if let port, owners[port] == nil { owners[port] = container["name"]?.string ?? "?" }
                }
            }
        }
    }

    /// What the pod's own annotations tell Prometheus.
    mutating func takeScraped(_ pod: JSON) {
        let port = pod["metadata"]?["annotations"]?["prometheus.io/port"]?.string.flatMap { Int($0) }
        if let port, owners[port] == nil { owners[port] = "that Prometheus is told of" }
    }

    func owner(of port: Int) -> String? { owners[port] }

    mutating func take(_ port: Int) { owners[port] = SidecarContainer.name }

    func firstFree(from port: Int) -> Int { (port...).first { owners[$0] == nil } ?? port }
}
