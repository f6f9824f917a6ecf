/// Where the application finds the sidecar, as the URL in its variable.
struct SidecarURL: Equatable {
    var text: String
    /// Whether the URL that it replaces has a user or a password. They are not taken over: the sidecar has its own,
    /// and a client that logs in as somebody else is not served from the cache.
    var dropsCredentials = false

    private static let schemes: Set = ["redis", "rediss", "valkey", "valkeys"]
    private static let credentials: Set<Substring> = ["username", "password"]

    init(port: Int) { text = "redis://127.0.0.1:\(port)" }

    /// With the database and the query of the URL that it replaces; nil where that is none of Redis.
    init?(port: Int, replacing url: String) {
        self.init(port: port)
        guard let mark = url.firstRange(of: "://"), Self.schemes.contains(url[..<mark.lowerBound].lowercased()) else {
            return nil
        }
        let address = url[mark.upperBound...].prefix { $0 != "#" }
        let authority = address.prefix { $0 != "/" && $0 != "?" }
        let rest = address[authority.endIndex...].split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        // What follows a slash in a password that is not escaped.
        guard let path = rest.first, !path.contains("@") else { return nil }
        let parameters = rest.dropFirst().first?.split(separator: "&") ?? []
        let others = parameters.filter { !Self.credentials.contains($0.prefix { $0 != "=" }) }
        // What follows a question mark or a hash in such a password.
        guard !others.contains(where: { $0.contains("@") }), !url[address.endIndex...].contains("@") else { return nil }
        let kept = others.filter { !Self.isForTLS($0) }
        text += path + (kept.isEmpty ? "" : "?" + kept.joined(separator: "&"))
        dropsCredentials = authority.contains("@") || others.count < parameters.count
    }

    /// The sidecar speaks no TLS, and clients refuse options of it for a connection without.
    private static func isForTLS(_ parameter: Substring) -> Bool {
        ["ssl", "tls"].contains { parameter.lowercased().hasPrefix($0) }
    }
}
