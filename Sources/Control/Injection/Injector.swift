import OrderedCollections

/// Decides what becomes of a pod: a pure function, which `ferritectl inject` and the webhook share.
struct Injector: Sendable {
    var defaults = InjectionDefaults()

    private static let systemNamespaces: Set<String> = ["kube-system", "kube-public", "kube-node-lease"]
    /// Containers of service meshes: not the application's, and as native sidecars to be started before ours, so that
    /// ours finds its upstream through them.
    private static let meshContainers: Set<String> = [
        "istio-proxy", "linkerd-proxy", "istio-init", "istio-validation", "linkerd-init", "linkerd-network-validator",
    ]
    private static let metricsPortDefault = 9091
    private static let prometheusPrefix = "prometheus.io/"
    static let scrapeNames = ["scrape", "port", "path"].map { prometheusPrefix + $0 }

    /// - Parameters:
    ///   - pod: metadata and spec, of a Pod or of a template; of any form, since nobody has judged it yet.
    ///   - namespace: where it is to run; nil where that is not known.
    func decide(pod: JSON, namespace: String?) -> Decision {
        var reader = AnnotationReader(annotations: pod["metadata"]?["annotations"])
        switch reader.isRequested {
        case true?: break
        case false? where reader.mistakes.isEmpty: return .skipped(.optedOut)
        default: return reader.mistakes.isEmpty ? .skipped(.notRequested) : .denied(.badAnnotation, reader.mistakes)
        }
        if let reason = Self.reasonToSkip(pod, namespace: namespace) { return .skipped(reason) }
        guard let request = reader.request(defaults: defaults) else { return .denied(.badAnnotation, reader.mistakes) }
        let clean = Self.withoutTraces(pod)
        let decision = decide(request, pod: clean.pod, status: clean.status)
        guard case .injected(let patch, let warnings) = decision else { return decision }
        return .injected(clean.patch + patch, warnings: clean.warnings + warnings)
    }

    /// Where somebody took the container out alone, what came with it goes first: it is ours, and would be taken for the
    /// pod's own. What cannot be given back stays in the status.
    private static func withoutTraces(
        _ pod: JSON
    ) -> (pod: JSON, status: InjectionStatus?, patch: [PatchOperation], warnings: [String]) {
        var clean = pod
        guard case .removed(let patch, let warnings) = Uninjector.decide(pod: pod), clean.apply(patch) else {
            return (pod, nil, [], [])
        }
        let left = clean["metadata"]?["annotations"]?[SidecarAnnotation.statusName]?.string
        return (clean, left.flatMap(InjectionStatus.init(text:)), patch, warnings)
    }

    private func decide(_ request: SidecarRequest, pod: JSON, status: InjectionStatus?) -> Decision {
        if !request.isNative, let policy = pod["spec"]?["restartPolicy"]?.string, policy != "Always" {
            return .denied(
                .wouldNeverEnd,
                [
                    "\(SidecarAnnotation.prefix)native is \"false\" and restartPolicy is \(policy): a plain sidecar would "
                        + "keep the pod from ever completing; use \"true\" (Kubernetes 1.29 and later)"
                ])
        }
        var ports = PodPorts(pod)
        ports.takeScraped(pod)
        if let owner = ports.owner(of: request.port) {
            return .denied(
                .portClash,
                [
                    "port \(request.port) is taken by container \(owner): set \(SidecarAnnotation.prefix)port, e.g. \"6380\""
                ])
        }
        if let port = request.metricsPort, let owner = ports.owner(of: port) {
            return .denied(
                .portClash,
                [
                    "port \(port) is taken by container \(owner): set \(SidecarAnnotation.prefix)metrics-port to another, e.g. \"9092\""
                ])
        }
        let hasVolume = (pod["spec"]?["volumes"]?.elements ?? []).contains { $0["name"]?.string == SidecarVolume.name }
        if hasVolume, SidecarVolume.make(request) != nil {
            return .denied(
                .volumeClash,
                [
                    "the pod has a volume \(SidecarVolume.name), which is the sidecar's: give yours another name, e.g. \"redis-tls\""
                ])
        }
        ports.take(request.port)
        let metricsPort = request.metricsPort ?? ports.firstFree(from: Self.metricsPortDefault)
        return inject(request, into: pod, metricsPort: metricsPort, left: status)
    }

    private static func reasonToSkip(_ pod: JSON, namespace: String?) -> Decision.Reason? {
        let spec = pod["spec"]
        let containers = spec?["containers"]?.elements ?? []
        if (containers + (spec?["initContainers"]?.elements ?? [])).contains(where: {
            $0["name"]?.string == SidecarContainer.name
        }) {
            return .alreadyInjected
        }
        if pod["metadata"]?["annotations"]?["kubernetes.io/config.mirror"] != nil { return .mirrorPod }
        if let namespace, systemNamespaces.contains(namespace) { return .systemNamespace }
        if spec?["hostNetwork"]?.bool == true { return .hostNetwork }
        if isForOthersThanLinux(spec) { return .windows }
        return containers.isEmpty ? .noContainers : nil
    }

    private static func isForOthersThanLinux(_ spec: JSON?) -> Bool {
        let selector = spec?["nodeSelector"]
        if [spec?["os"]?["name"], selector?["kubernetes.io/os"], selector?["beta.kubernetes.io/os"]].contains("windows")
        {
            return true
        }
        let required = spec?["affinity"]?["nodeAffinity"]?["requiredDuringSchedulingIgnoredDuringExecution"]
        // One term is enough for a node, and each of its expressions must hold.
        let terms = required?["nodeSelectorTerms"]?.elements ?? []
        return !terms.isEmpty
            && terms.allSatisfy { ($0["matchExpressions"]?.elements ?? []).contains(where: excludesLinux) }
    }

    private static func excludesLinux(_ expression: JSON) -> Bool {
        guard ["kubernetes.io/os", "beta.kubernetes.io/os"].contains(expression["key"]?.string) else { return false }
        let hasLinux = expression["values"]?.elements.contains("linux") ?? false
        switch expression["operator"]?.string {
        case "In": return !hasLinux
        case "NotIn": return hasLinux
        default: return false
        }
    }

    /// - Parameter left: of a status before, what could not be given back.
    private func inject(
        _ request: SidecarRequest, into pod: JSON, metricsPort: Int, left: InjectionStatus?
    ) -> Decision {
        var status = InjectionStatus()
        if let left, left.envName == request.envName { status = left }
        status.version = Version.current
        var warnings: [String] = []
        if request.metricsPort == nil, metricsPort != Self.metricsPortDefault {
            warnings.append(
                "port \(Self.metricsPortDefault) is taken in this pod: the sidecar's metrics are on \(metricsPort)")
        }
        for (port, suffix, good) in [(request.port, "port", "6380"), (metricsPort, "metrics-port", "9092")]
        where port < 1024 {
            warnings.append(
                "port \(port) is one that only root may have where the container runtime does not say otherwise: use "
                    + "\(SidecarAnnotation.prefix)\(suffix), e.g. \"\(good)\"")
        }
        let resources = PodResources(request, pod: pod, defaults: defaults)
        warnings += resources.warnings
        let context = pod["spec"]?["securityContext"]
        let container = SidecarContainer.make(
            request,
            in: .init(
                metricsPort: metricsPort, resources: resources.container,
                podRunsAsRoot: context?["runAsUser"]?.integer == 0))
        var patch = Self.environment(request, pod: pod, status: &status, warnings: &warnings)
        patch.append(Self.placement(of: container, isNative: request.isNative, pod: pod, status: &status))
        if let volume = SidecarVolume.make(request) {
            let hasOthers = pod["spec"]?["volumes"]?.elements.isEmpty == false
            status.volume = true
            if !hasOthers { status.note(empty: pod["spec"]?["volumes"], as: "volumes") }
            patch.append(hasOthers ? .add(["spec", "volumes", "-"], volume) : .add(["spec", "volumes"], [volume]))
        }
        patch += resources.podChanges
        status.note(resources: pod["spec"]?["resources"], changes: resources.podChanges)
        let scraped = Self.scrapeAnnotations(metricsPort: metricsPort, pod: pod, status: &status)
        if scraped.isEmpty {
            warnings.append(
                "the pod has annotations prometheus.io/… of its own, which are left: the sidecar's metrics on \(metricsPort) "
                    + "want a PodMonitor")
        }
        patch += scraped
        patch.append(.add(Self.annotations / SidecarAnnotation.statusName, .string(status.jsonLine)))
        return .injected(patch, warnings: warnings)
    }

    private static let annotations: JSONPointer = ["metadata", "annotations"]

    /// First of the init containers, or right behind a mesh's own sidecar, so that those behind it can use it; a plain one
    /// comes last, because the first container is what `kubectl logs` takes.
    private static func placement(
        of container: JSON, isNative: Bool, pod: JSON, status: inout InjectionStatus
    ) -> PatchOperation {
        guard isNative else { return .add(["spec", "containers", "-"], container) }
        guard case .array(let others)? = pod["spec"]?["initContainers"], !others.isEmpty else {
            status.note(empty: pod["spec"]?["initContainers"], as: "initContainers")
            return .add(["spec", "initContainers"], [container])
        }
        return .add(["spec", "initContainers"] / nativePlace(among: others), container)
    }

    private static func nativePlace(among others: [JSON]) -> Int {
        let mesh = others.lastIndex {
            $0["restartPolicy"]?.string == "Always" && meshContainers.contains($0["name"]?.string ?? "")
        }
        return mesh.map { $0 + 1 } ?? 0
    }

    /// Tells the application's containers where their Redis is, unless they have been told.
    private static func environment(
        _ request: SidecarRequest, pod: JSON, status: inout InjectionStatus, warnings: inout [String]
    ) -> [PatchOperation] {
        status.envName = request.envName
        // While init containers run, a plain sidecar does not, and neither does one that comes behind them.
        let start = pod["spec"]?["initContainers"]?.elements ?? []
        let firstServed = request.isNative ? nativePlace(among: start) : start.count
        var patch: [PatchOperation] = []
        for (list, first) in [("containers", 0), ("initContainers", firstServed)] {
            for (index, container) in (pod["spec"]?[list]?.elements ?? []).enumerated().dropFirst(first) {
                if meshContainers.contains(container["name"]?.string ?? "") { continue }
                let who = list == "containers" ? "container" : "init container"
                let change = variable(request, of: container, who, status: &status, warnings: &warnings)
                if let change { patch.append(change.below(["spec", list] / index)) }
            }
        }
        return patch
    }

    /// What is changed in one container.
    private static func variable(
        _ request: SidecarRequest, of container: JSON, _ who: String, status: inout InjectionStatus,
        warnings: inout [String]
    ) -> PatchOperation? {
        let name = container["name"]?.string ?? ""
        let variables = container["env"]?.elements ?? []
        func given(_ url: SidecarURL) -> JSON {
            status.note(value: url.text, as: name + "/env")
            return ["name": .string(request.envName), "value": .string(url.text)]
        }
        guard let known = variables.lastIndex(where: { $0["name"]?.string == request.envName }) else {
            status.env.append(name)
            if variables.isEmpty { status.note(empty: container["env"], as: name + "/env") }
            if container["envFrom"]?.elements.isEmpty == false {
                warnings.append(
                    "\(who) \(name) has variables from elsewhere (envFrom): a \(request.envName) among them does not "
                        + "count any more, nor does a database that it names")
            }
            let ours = given(SidecarURL(port: request.port))
            // In front, so that the container's own variables can refer to it.
            return variables.isEmpty ? .add(["env"], [ours]) : .add(["env", "0"], ours)
        }
        let theirs = variables[known]
        let literal = theirs["valueFrom"]?.object == nil ? theirs["value"]?.string ?? "" : nil
        let kept = literal.flatMap { SidecarURL(port: request.port, replacing: $0) }
        let url = kept ?? SidecarURL(port: request.port)
        if literal == url.text { return nil }
        if !request.overridesEnv {
            warnings.append(
                "\(who) \(name) has a \(request.envName) of its own, which is left as it is: "
                    + "\(SidecarAnnotation.prefix)env-override: \"true\" replaces it")
            return nil
        }
        if kept == nil, literal != "" {
            let form = literal == nil ? "comes from elsewhere (valueFrom)" : "is no URL redis://HOST"
            warnings.append(
                "\(who) \(name): its \(request.envName) \(form), so a database that it names is not taken over")
        }
        if url.dropsCredentials, request.passwordSecret == nil {
            warnings.append(
                "\(who) \(name): the credentials in its \(request.envName) are not taken over, and the sidecar has "
                    + "none: set \(SidecarAnnotation.prefix)password-secret, e.g. \"redis-auth/password\"")
        }
        status.replaced[name] = theirs
        return .replace(["env"] / known, given(url))
    }

    /// As Prometheus' usual scrape configuration for pods reads them; a pod that has any keeps its own.
    private static func scrapeAnnotations(metricsPort: Int, pod: JSON, status: inout InjectionStatus)
        -> [PatchOperation]
    {
        let present = pod["metadata"]?["annotations"]?.object ?? [:]
        if present.keys.contains(where: { $0.hasPrefix(prometheusPrefix) }) { return [] }
        return zip(scrapeNames, ["true", String(metricsPort), "/metrics"]).map { name, value in
            status.annotations.append(name)
            status.note(value: value, as: name)
            return .add(annotations / name, .string(value))
        }
    }
}
