/// The TCP ports that a pod's containers name: they share one network.
struct PodPorts {
    private var owners: [Int: String] = [:]

    init(_ pod: JSON) {
        let containers = (pod["spec"]?["initContainers"]?.elements ?? []) + (pod["spec"]?["containers"]?.elements ?? [])
        for container in containers {
            for port in container["ports"]?.elements ?? [] where (port["protocol"]?.string ?? "TCP") == "TCP" {
                guard let number = port["containerPort"]?.integer.flatMap({ Int(exactly: $0) }) else { continue }
                owners[number] = container["name"]?.string ?? "?"
            }
        }
    }

    func owner(of port: Int) -> String? { owners[port] }

    mutating func take(_ port: Int) { owners[port] = SidecarContainer.name }

    func firstFree(from port: Int) -> Int { (port...).first { owners[$0] == nil } ?? port }
}
