import OrderedCollections

/// Reads a pod's annotations into a request, or into everything that is wrong with them.
struct AnnotationReader {
    /// By the names with ferrite.io; values that are no texts are mistakes already.
    private var values: [String: String] = [:]
    private(set) var mistakes: [String] = []

    /// Whether a sidecar is asked for; nil where nothing is said.
    var isRequested: Bool? {
        switch values[SidecarAnnotation.injectName] {
        case "true": true
        case "false": false
        default: nil
        }
    }

    init(annotations: JSON?) {
        for (name, value) in annotations?.object ?? [:] {
            guard let standard = Self.standardName(name) else { continue }
            guard let text = value.string else {
                mistakes.append("\(name) must be a text: put quotes around its value")
                continue
            }
            if let other = values[standard], other != text {
                mistakes.append(
                    "\(standard) is given twice with different values, by ferrite.io and by ferrite.dev: keep one")
            }
            values[standard] = text
        }
        if let text = values[SidecarAnnotation.injectName], isRequested == nil {
            mistakes.append(Self.mistake(SidecarAnnotation.injectName, text, #""true" or "false""#))
        }
    }

    /// nil when something is wrong: `mistakes` says what.
    mutating func request(defaults: InjectionDefaults) -> SidecarRequest? {
        var request = SidecarRequest(defaults: defaults)
        var rest = values
        rest[SidecarAnnotation.injectName] = nil
        rest[SidecarAnnotation.statusName] = nil
        for annotation in SidecarAnnotation.all {
            guard let text = rest.removeValue(forKey: annotation.name) else { continue }
            if !annotation.apply(text, &request) {
                mistakes.append(Self.mistake(annotation.name, text, annotation.expected))
            }
        }
        for name in rest.keys.sorted() {
            mistakes.append(
                "\(name) is not known: use one of \(SidecarAnnotation.all.map(\.suffix).joined(separator: ", "))")
        }
        judgeTogether(request)
        return mistakes.isEmpty ? request : nil
    }

    /// Values that are good alone and not beside each other.
    private mutating func judgeTogether(_ request: SidecarRequest) {
        if request.metricsPort == request.port {
            mistakes.append(
                "\(SidecarAnnotation.prefix)metrics-port and -port are both \(request.port): use another, e.g. \"9091\""
            )
        }
        let isTLS = request.upstream.hasPrefix(SidecarAnnotation.tlsScheme)
        if request.isOwnUpstream {
            mistakes.append(
                "\(SidecarAnnotation.prefix)upstream: \(request.upstream) is where the sidecar itself listens: use the central "
                    + "server, e.g. \"ferrite-cluster.default.svc:6379\", or another \(SidecarAnnotation.prefix)port"
            )
        }
        if let wanted = request.cpuRequest, let limit = request.cpuLimit, limit < wanted {
            mistakes.append(
                "\(SidecarAnnotation.prefix)cpu-limit is less than -cpu-request: use \"\(wanted.text)\" or more")
        }
        let hasServerName = request.settings.contains { $0.key == "tls_server_name" }
        if !isTLS, request.tlsCA != nil || request.tlsSecret != nil || hasServerName {
            mistakes.append(
                "\(SidecarAnnotation.prefix)tls-… is for an upstream by TLS only: use \(SidecarAnnotation.prefix)upstream, e.g. "
                    + "\"\(SidecarAnnotation.tlsScheme)\(request.upstream)\"")
        }
        if request.passwordSecret == nil, request.settings.contains(where: { $0.key == "username" }) {
            mistakes.append(
                "\(SidecarAnnotation.prefix)username needs \(SidecarAnnotation.prefix)password-secret, e.g. \"redis-auth/password\""
            )
        }
    }

    /// ferrite.dev's names are ferrite.io's; nil for other people's annotations.
    private static func standardName(_ name: String) -> String? {
        if name.hasPrefix(SidecarAnnotation.prefix) { return name }
        guard name.hasPrefix(SidecarAnnotation.aliasPrefix) else { return nil }
        return SidecarAnnotation.prefix + name.dropFirst(SidecarAnnotation.aliasPrefix.count)
    }

    /// A password in an address is not repeated: the sentence may go into events.
    private static func mistake(_ name: String, _ value: String, _ expected: String) -> String {
        if name == SidecarAnnotation.prefix + "upstream", value.contains("@") {
            return
                "\(name) carries credentials: use \(expected), with \(SidecarAnnotation.prefix)username and -password-secret"
        }
        return "\(name): \"\(String(value.prefix(60)))\" is not understood: use \(expected)"
    }
}
