/// What holds for pods that say nothing else: the injector's own configuration, by options of `ferritectl`.
struct InjectionDefaults: Equatable, Sendable {
    var image = "ferritelabs/ferrite:\(Version.current)"
    var upstream = "ferrite-cluster.default.svc:6379"
    var memory = Quantity.mebibytes(128)
    var cpuRequest = Quantity.millicores(100)
    /// The limit, and the request, of a sidecar in a Guaranteed pod that says nothing.
    var guaranteedCPU = Quantity.millicores(500)
}
