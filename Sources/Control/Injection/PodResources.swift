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
        podChanges = Self.podChanges(pod, requests: requests, limits: limits, wantedCPU: wanted)
    }

    /// Every container has limits of CPU and memory, and requests that are the same or not given; or the pod as a whole.
    private static func isGuaranteed(_ pod: JSON, _ containers: [JSON]) -> Bool {
        if let whole = pod["spec"]?["resources"], whole.object?.isEmpty == false {
            return ["cpu", "memory"].allSatisfy { kind in
                let wanted = quantity(whole["requests"]?[kind]) ?? sum(kind, pod) ?? quantity(whole["limits"]?[kind])
                return isGuaranteed(limit: whole["limits"]?[kind], request: wanted)
            }
        }
        return containers.allSatisfy { container in
            let resources = container["resources"]
            return ["cpu", "memory"].allSatisfy { kind in
                isGuaranteed(limit: resources?["limits"]?[kind], request: request(kind, container))
            }
        }
    }

    private static func isGuaranteed(limit: JSON?, request: Quantity?) -> Bool {
        guard let limit = quantity(limit), limit.thousandths > 0 else { return false }
        return request == limit
    }

    /// What is limited and not requested, is requested, says the API server's defaulting.
    private static func request(_ kind: String, _ container: JSON) -> Quantity? {
        let resources = container["resources"]
        return quantity(resources?["requests"]?[kind] ?? resources?["limits"]?[kind])
    }

    /// What all containers request together, as the scheduler counts it; nil where none requests any. The API server
    /// takes it for the request of a pod as a whole that has none.
    private static func sum(_ kind: String, _ pod: JSON) -> Quantity? {
        let none = Quantity.millicores(0)
        let containers = (pod["spec"]?["containers"]?.elements ?? []).compactMap { request(kind, $0) }
        var atStart = none
        var sidecars = none
        var isRequested = !containers.isEmpty
        for container in pod["spec"]?["initContainers"]?.elements ?? [] {
            guard let wanted = request(kind, container) else { continue }
            isRequested = true
            atStart = max(atStart, sidecars + wanted)
            if container["restartPolicy"]?.string == "Always" { sidecars = sidecars + wanted }
        }
        return isRequested ? max(atStart, containers.reduce(sidecars, +)) : nil
    }

    /// Containers share what their pod as a whole has: it grows by what ours takes.
    private static func podChanges(
        _ pod: JSON, requests: OrderedMembers, limits: OrderedMembers, wantedCPU: Quantity
    ) -> [PatchOperation] {
        var changes = missingRequests(pod, requests: requests)
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
    private static func missingRequests(_ pod: JSON, requests: OrderedMembers) -> [PatchOperation] {
        let whole = pod["spec"]?["resources"]
        var missing: OrderedMembers = [:]
        for kind in ["cpu", "memory"] {
            guard let limit = quantity(whole?["limits"]?[kind]), whole?["requests"]?[kind] == nil,
                sum(kind, pod) == nil, let ours = quantity(requests[kind])
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
