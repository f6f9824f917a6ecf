import Glibc

/// An IPv4 or IPv6 address in figures, as listeners take it.
struct NumericAddress: Sendable, Equatable {
    enum Family: Sendable { case v4, v6 }

    let family: Family
    /// As the kernel writes it: an address has one spelling only.
    let text: String

    /// nil for names and anything else.
    init?(_ text: String) {
        var v4 = in_addr()
        var v6 = in6_addr()
        var buffer = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
        if inet_pton(AF_INET, text, &v4) == 1 {
            family = .v4
            inet_ntop(AF_INET, &v4, &buffer, socklen_t(buffer.count))
        } else if inet_pton(AF_INET6, text, &v6) == 1 {
            family = .v6
            inet_ntop(AF_INET6, &v6, &buffer, socklen_t(buffer.count))
        } else {
            return nil
        }
        self.text = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    var isLoopback: Bool { text == "::1" || text.hasPrefix("127.") || text.hasPrefix("::ffff:127.") }
    var isWildcard: Bool { text == "0.0.0.0" || text == "::" }
}

/// One of the addresses in `bind`.
struct ListenAddress: Sendable, Equatable {
    let address: NumericAddress
    /// Written "-::1", as in Redis: left out where the machine does not have it.
    let isOptional: Bool

    init?(_ text: String) {
        isOptional = text.hasPrefix("-")
        guard let address = NumericAddress(isOptional ? String(text.dropFirst()) : text) else { return nil }
        self.address = address
    }
}
