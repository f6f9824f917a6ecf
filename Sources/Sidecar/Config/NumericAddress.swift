import Glibc

/// An IPv4 or IPv6 address in figures, as listeners take it.
struct NumericAddress: Sendable, Equatable {
    enum Family: Sendable { case v4, v6 }

    let family: Family
    let text: String

    /// nil for names and anything else.
    init?(_ text: String) {
        var v4 = in_addr()
        var v6 = in6_addr()
        if inet_pton(AF_INET, text, &v4) == 1 {
            family = .v4
        } else if inet_pton(AF_INET6, text, &v6) == 1 {
            family = .v6
        } else {
            return nil
        }
        self.text = text
    }

    var isLoopback: Bool { text == "::1" || (family == .v4 && text.hasPrefix("127.")) }
    var isWildcard: Bool { text == "0.0.0.0" || text == "::" }
}
