/// The volume that is added to a pod whose upstream speaks TLS: the Secrets that its annotations name, as files under the
/// names that Kubernetes gives them. A Secret that changes changes them, and the daemon reads them again.
enum SidecarVolume {
    static let name = "ferrite-sidecar-tls"
    static let path = "/etc/ferrite/tls"

    /// nil where no Secret is named.
    static func make(_ request: SidecarRequest) -> JSON? {
        var sources: [JSON] = []
        if let ca = request.tlsCA { sources.append(source(ca.secret, [(ca.key, "ca.crt")])) }
        if let secret = request.tlsSecret {
            sources.append(source(secret, [("tls.crt", "tls.crt"), ("tls.key", "tls.key")]))
        }
        if sources.isEmpty { return nil }
        return ["name": .string(name), "projected": ["sources": .array(sources)]]
    }

    /// Keys of the daemon's configuration and the files that they are to name.
    static func files(_ request: SidecarRequest) -> [(key: String, file: String)] {
        (request.tlsCA == nil ? [] : [("tls_ca_cert_file", "ca.crt")])
            + (request.tlsSecret == nil ? [] : [("tls_cert_file", "tls.crt"), ("tls_key_file", "tls.key")])
    }

    private static func source(_ secret: String, _ items: [(key: String, path: String)]) -> JSON {
        [
            "secret": [
                "name": .string(secret),
                "items": .array(items.map { ["key": .string($0.key), "path": .string($0.path)] }),
            ]
        ]
    }
}
