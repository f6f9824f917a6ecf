/// What becomes of a pod. Its name is the `decision` of reports and metrics.
enum Decision: Equatable, Sendable {
    /// The pod gets a sidecar; what its owner should know is a sentence each.
    case injected([PatchOperation], warnings: [String])
    case skipped(Reason)
    /// The pod must not start as it is: a sentence each, naming the annotation and a good value.
    case denied(Refusal, [String])

    enum Reason: String, CaseIterable, Sendable {
        case notRequested = "not-requested"
        case optedOut = "opted-out"
        case alreadyInjected = "already-injected"
        case systemNamespace = "system-namespace"
        case hostNetwork = "host-network"
        case windows
        case mirrorPod = "mirror-pod"
        case noContainers = "no-containers"

        /// Behind "not injected: ".
        var sentence: String {
            switch self {
            case .notRequested: "there is no annotation \(SidecarAnnotation.injectName)"
            case .optedOut: "\(SidecarAnnotation.injectName) is \"false\""
            case .alreadyInjected: "there is a container \(SidecarContainer.name)"
            case .systemNamespace: "pods of the system's namespaces are left alone"
            case .hostNetwork: "with hostNetwork its ports would be the node's"
            case .windows: "the sidecar runs on Linux only"
            case .mirrorPod: "it only shows a static pod of a node, which is made from the file there"
            case .noContainers: "there is no container"
            }
        }

        /// Whether the owner has asked for something that does not come.
        var isWarning: Bool {
            switch self {
            case .systemNamespace, .hostNetwork, .windows, .mirrorPod: true
            case .notRequested, .optedOut, .alreadyInjected, .noContainers: false
            }
        }
    }

    enum Refusal: String, CaseIterable, Sendable {
        case badAnnotation = "bad-annotation"
        case portClash = "port-clash"
        case volumeClash = "volume-clash"
        /// A plain container beside containers that are to end.
        case wouldNeverEnd = "would-never-end"
    }

    var name: String {
        switch self {
        case .injected: "injected"
        case .skipped(let reason): reason.rawValue
        case .denied(let refusal, _): refusal.rawValue
        }
    }
}
