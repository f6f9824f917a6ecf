import ArgumentParser
import Yams

/// `ferritectl inject`: puts the sidecar into manifests, as the webhook does into pods.
struct Inject: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Put the sidecar into manifests whose pods ask for it.",
        discussion: """
            A pod asks with the annotation \(SidecarAnnotation.injectName): "true", on itself or in its workload's
            template (spec.template.metadata.annotations). The manifests go to standard output, what was done and why to
            standard error. Objects that are not touched keep every byte; running it again changes nothing. When a pod
            cannot be injected as its annotations say, nothing is written.

            Examples:
              ferritectl inject -f app.yaml | kubectl apply -f -
              ferritectl inject -f manifests/ -o json
              helm template my-app | ferritectl inject -f - --namespace shop

            Annotations, each \(SidecarAnnotation.prefix)…:
            \(SidecarAnnotation.all.map { "  \($0.suffix): \($0.expected)" }.joined(separator: "\n"))
            """)

    @OptionGroup var manifests: ManifestOptions
    @OptionGroup var defaults: DefaultsOptions

    func run() throws {
        let injector = Injector(defaults: defaults.values)
        try manifests.rewrite { place, pod in
            let decision = injector.decide(pod: pod, namespace: place.namespace ?? manifests.namespace)
            switch decision {
            case .injected(let patch, let warnings): return .init(decision.name, patch: patch, sentences: warnings)
            case .skipped(.notRequested) where AnnotationReader(annotations: place.ownAnnotations).isRequested == true:
                return .init(
                    decision.name,
                    sentences: [
                        "\(SidecarAnnotation.injectName) stands on the object, not on its pods: put it into the template's metadata"
                    ])
            case .skipped(let reason): return .init(decision.name, sentences: [reason.sentence])
            case .denied(_, let mistakes): return .init(decision.name, sentences: mistakes, isRefusal: true)
            }
        }
    }
}

/// `ferritectl uninject`: takes the sidecar out again.
struct Uninject: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Take the sidecar out of manifests that inject has put it into.",
        discussion: """
            Environment variables that inject has replaced come back. What has been changed since is left, and standard
            error says so. The annotations that asked for the sidecar stay.
            """)

    @OptionGroup var manifests: ManifestOptions

    func run() throws {
        try manifests.rewrite { _, pod in
            switch Uninjector.decide(pod: pod) {
            case .removed(let patch, let warnings): .init("uninjected", patch: patch, sentences: warnings)
            case .nothing(let why): .init("not-injected", sentences: [why])
            }
        }
    }
}

/// What an injector does for pods that say nothing else.
struct DefaultsOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The sidecar's image.", valueName: "image"))
    var image = InjectionDefaults().image

    @Option(help: ArgumentHelp("The central server of pods that name none.", valueName: "host:port"))
    var upstream = InjectionDefaults().upstream

    @Option(help: ArgumentHelp("Memory limit of sidecars of pods that name none.", valueName: "size"))
    var memory = InjectionDefaults().memory.text

    @Option(help: ArgumentHelp("CPU request of sidecars of pods that name none.", valueName: "amount"))
    var cpuRequest = InjectionDefaults().cpuRequest.text

    var values: InjectionDefaults {
        var request = SidecarRequest(defaults: InjectionDefaults())
        for (suffix, value) in given { _ = SidecarAnnotation.named(suffix)?.apply(value, &request) }
        var defaults = InjectionDefaults()
        (defaults.image, defaults.upstream, defaults.memory) = (request.image, request.upstream, request.memory)
        defaults.cpuRequest = request.cpuRequest ?? defaults.cpuRequest
        return defaults
    }

    private var given: [(String, String)] {
        [("image", image), ("upstream", upstream), ("memory", memory), ("cpu-request", cpuRequest)]
    }

    /// The same forms as the annotations'.
    func validate() throws {
        var request = SidecarRequest(defaults: InjectionDefaults())
        for (suffix, value) in given {
            guard let annotation = SidecarAnnotation.named(suffix), !annotation.apply(value, &request) else { continue }
            throw ValidationError("--\(suffix) \(value): expected \(annotation.expected)")
        }
        // Else each pod would be refused, for an annotation that it does not have.
        if request.isOwnUpstream {
            throw ValidationError(
                "--upstream \(upstream): is where the sidecar itself listens: use the central server, e.g. "
                    + "\(InjectionDefaults().upstream)")
        }
    }
}
