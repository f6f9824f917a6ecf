/// What a pod asks for by its annotations, read and judged: nothing in it keeps the container from starting.
struct SidecarRequest: Equatable, Sendable {
    var image: String
    var upstream: String
    /// The container's memory limit, from which the daemon derives local_memory.
    var memory: Quantity
    var cpuRequest: Quantity?
    var cpuLimit: Quantity?
    var port = 6379
    /// nil: 9091, or the next that is free in the pod.
    var metricsPort: Int?
    /// Further keys of the daemon, for `--set`.
    var settings: [Setting] = []
    var passwordSecret: SecretKey?
    /// The authorities by which the upstream's certificate is signed; nil: those of the image.
    var tlsCA: SecretKey?
    /// Of type kubernetes.io/tls: the certificate that the upstream is shown.
    var tlsSecret: String?
    /// A profile of the node, below the kubelet's seccomp folder; nil: the runtime's default.
    var seccompProfile: String?
    var envName = "REDIS_URL"
    var overridesEnv = false
    var isNative = true

    /// Whether the upstream is where the sidecar itself listens.
    var isOwnUpstream: Bool {
        let isTLS = upstream.hasPrefix(SidecarAnnotation.tlsScheme)
        let address = isTLS ? upstream.dropFirst(SidecarAnnotation.tlsScheme.count) : upstream[...]
        return SidecarAnnotation.isOwn(address, port: port)
    }

    struct Setting: Equatable, Sendable {
        var key: String
        var value: String
    }

    /// A key of a Secret in the pod's namespace.
    struct SecretKey: Equatable, Sendable {
        var secret: String
        var key: String
    }

    init(defaults: InjectionDefaults) {
        image = defaults.image
        upstream = defaults.upstream
        memory = defaults.memory
    }
}
