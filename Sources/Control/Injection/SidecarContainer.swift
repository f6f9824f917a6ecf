import OrderedCollections

/// The container that is added to a pod: hardened as the PodSecurity standard "restricted" wants it, configured by
/// arguments and environment only.
enum SidecarContainer {
    static let name = "ferrite-sidecar"
    static let portName = "ferrite"
    static let metricsPortName = "ferrite-metrics"
    /// The image's user.
    static let user: Int64 = 1000

    /// What of the pod decides how the container looks.
    struct Surroundings: Equatable, Sendable {
        var metricsPort: Int
        var resources: JSON
        /// The pod runs as root unless a container says otherwise, and ours must say so.
        var podRunsAsRoot: Bool
    }

    static func make(_ request: SidecarRequest, in pod: Surroundings) -> JSON {
        var container: OrderedMembers = [
            "name": .string(name),
            "image": .string(request.image),
            "args": .array(arguments(request, metricsPort: pod.metricsPort).map { .string(escaped($0)) }),
        ]
        if let secret = request.passwordSecret {
            container["env"] = [
                [
                    "name": "FERRITE_SIDECAR_PASSWORD",
                    "valueFrom": ["secretKeyRef": ["name": .string(secret.secret), "key": .string(secret.key)]],
                ]
            ]
        }
        container["ports"] = [
            ["name": .string(portName), "containerPort": .integer(Int64(request.port)), "protocol": "TCP"],
            ["name": .string(metricsPortName), "containerPort": .integer(Int64(pod.metricsPort)), "protocol": "TCP"],
        ]
        container["resources"] = pod.resources
        if SidecarVolume.make(request) != nil {
            container["volumeMounts"] = [
                ["name": .string(SidecarVolume.name), "mountPath": .string(SidecarVolume.path), "readOnly": true]
            ]
        }
        container["securityContext"] = securityContext(request, podRunsAsRoot: pod.podRunsAsRoot)
        // Started within 60 s, else begun anew; the page's thread has the lowest class, hence the timeouts.
        container["startupProbe"] = probe("/readyz", period: 1, failures: 60)
        container["readinessProbe"] = probe("/readyz", period: 5, failures: 3)
        container["livenessProbe"] = probe("/healthz", period: 10, failures: 6)
        if request.isNative { container["restartPolicy"] = "Always" }
        return .object(container)
    }

    private static func arguments(_ request: SidecarRequest, metricsPort: Int) -> [String] {
        var arguments = [
            "--sidecar", "--upstream", request.upstream, "--port", String(request.port), "--metrics-port",
            String(metricsPort),
            "--set", "log_format=json",
        ]
        for (key, file) in SidecarVolume.files(request) {
            arguments += ["--set", "\(key)=\(SidecarVolume.path)/\(file)"]
        }
        for setting in request.settings { arguments += ["--set", "\(setting.key)=\(setting.value)"] }
        return arguments
    }

    /// The kubelet expands $(NAME) in arguments, and takes $$ for a dollar.
    private static func escaped(_ argument: String) -> String {
        argument.split(separator: "$", omittingEmptySubsequences: false).joined(separator: "$$")
    }

    private static func securityContext(_ request: SidecarRequest, podRunsAsRoot: Bool) -> JSON {
        var context: OrderedMembers = ["runAsNonRoot": true]
        if podRunsAsRoot {
            context["runAsUser"] = .integer(user)
            context["runAsGroup"] = .integer(user)
        }
        context["allowPrivilegeEscalation"] = false
        context["readOnlyRootFilesystem"] = true
        context["capabilities"] = ["drop": ["ALL"]]
        context["seccompProfile"] =
            if let profile = request.seccompProfile {
                ["type": "Localhost", "localhostProfile": .string(profile)]
            } else {
                ["type": "RuntimeDefault"]
            }
        return .object(context)
    }

    private static func probe(_ path: String, period: Int64, failures: Int64) -> JSON {
        [
            "httpGet": ["path": .string(path), "port": .string(metricsPortName)],
            "periodSeconds": .integer(period), "timeoutSeconds": 5, "failureThreshold": .integer(failures),
        ]
    }
}
