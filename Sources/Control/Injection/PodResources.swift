import OrderedCollections

/// What the sidecar asks of the node, such that the pod keeps its quality of service where that can be.
struct PodResources {
    /// The container's `resources`.
    var container: JSON
    /// What is added to the pod's own `resources` (Kubernetes 1.32 and later), where it has such.
    var podChanges: [PatchOperation] = []
    var warnings: [String] = []

    init(_ request: SidecarRequest, pod: JSON, defaults: InjectionDefaults) {
        let containers = (pod["spec"]?["initContainers"]?.elements ?? []) + (pod["spec"]?["containers"]?.elements ?? [])
        var limit = request.cpuLimit
        var wanted = request.cpuRequest ?? limit.map { min($0, defaults.cpuRequest) } ?? defaults.cpuRequest
        if Self.isGuaranteed(pod, containers) {
            let amount = limit ?? request.cpuRequest ?? defaults.guaranteedCPU
            if let asked = request.cpuRequest, asked != amount {
                warnings.append(
                    "the pod is Guaranteed, so the sidecar's CPU request is its limit, \(amount.text), not \(asked.text)"
                )
            }
            (limit, wanted) = (amount, amount)
        } else if limit == nil, containers.allSatisfy({ $0["resources"]?["limits"]?["cpu"] != nil }) {
            warnings.append(
                "every container has a CPU limit, the sidecar has none: if a ResourceQuota wants one, set "
                    + "\(SidecarAnnotation.prefix)cpu-limit, e.g. \"1\"")
        }
        var limits: OrderedMembers = ["memory": .string(request.memory.text)]
        if let limit { limits["cpu"] = .string(limit.text) }
        let requests: OrderedMembers = ["cpu": .string(wanted.text), "memory": .string(request.memory.text)]
        container = ["limits": .object(limits), "requests": .object(requests)]
        podChanges = Self.podChanges(pod, containers, requests: requests, limits: limits, wantedCPU: wanted)
    }

    /// Every container has limits of CPU and memory, and requests that are the same or not given; or the pod as a whole.
    private static func isGuaranteed(_ pod: JSON, _ containers: [JSON]) -> Bool {
        let whole = pod["spec"]?["resources"]
        let hasWhole = whole?.object?.isEmpty == false
        let holders: [JSON] = hasWhole ? [["resources": whole ?? .null]] : containers
        return holders.allSatisfy { holder in
            ["cpu", "memory"].allSatisfy { kind in
                guard let limit = quantity(holder["resources"]?["limits"]?[kind]), limit.thousandths > 0 else {
                    return false
                }
                guard let request = holder["resources"]?["requests"]?[kind] else { return true }
                return quantity(request) == limit
            }
        }
    }

    /// Containers share what their pod as a whole has: it grows by what ours takes.
    private static func podChanges(
        _ pod: JSON, _ containers: [JSON], requests: OrderedMembers, limits: OrderedMembers, wantedCPU: Quantity
    ) -> [PatchOperation] {
        var changes = missingRequests(pod, containers, requests: requests)
        for (part, ours) in [("requests", requests), ("limits", limits)] {
            for kind in ["cpu", "memory"] {
                guard let theirs = quantity(pod["spec"]?["resources"]?[part]?[kind]) else { continue }
                let more = quantity(ours[kind]) ?? wantedCPU
                changes.append(.replace(["spec", "resources", part, kind], .string((theirs + more).text)))
            }
        }
        return changes
    }

    /// What a pod as a whole is limited to and nobody requests, it requests, says the API server's defaulting. Ours requests
    /// something, so it must be said.
    private static func missingRequests(
        _ pod: JSON, _ containers: [JSON], requests: OrderedMembers
    ) -> [PatchOperation] {
        let whole = pod["spec"]?["resources"]
        var missing: OrderedMembers = [:]
        for kind in ["cpu", "memory"] {
            let isRequested = containers.contains {
                $0["resources"]?["requests"]?[kind] != nil || $0["resources"]?["limits"]?[kind] != nil
            }
            guard let limit = quantity(whole?["limits"]?[kind]), whole?["requests"]?[kind] == nil, !isRequested,
                let ours = quantity(requests[kind])
            else { continue }
            missing[kind] = .string((limit + ours).text)
        }
        if missing.isEmpty { return [] }
        let place: JSONPointer = ["spec", "resources", "requests"]
        guard whole?["requests"]?.object != nil else { return [.add(place, .object(missing))] }
        return missing.map { .add(place / $0, $1) }
    }

    /// YAML's 1 and "1" are the same amount.
    private static func quantity(_ value: JSON?) -> Quantity? {
        switch value {
        case .string(let text): Quantity(text)
        case .integer(let number): Quantity(String(number))
        case .number(let number): Quantity(String(number))
        default: nil
        }
    }
}
