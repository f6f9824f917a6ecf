/// Why the upstream could not be had, or was lost: the kinds that the metrics tell apart.
enum UpstreamFailure: String, Sendable, CaseIterable {
    /// Its name has no address.
    case resolve
    case connect
    /// It speaks no TLS that we take, or has a certificate that we do not trust, or will not have ours.
    case tls
    /// It answered the handshake otherwise than a server does, or not in time.
    case handshake
    /// It will not have us: wrong credentials, too many clients.
    case refused
    /// It loads its data or runs a script.
    case busy
    /// The tracked link had been up, and ended or fell silent.
    case lost
}

/// How often each has happened.
struct UpstreamFailures: Sendable, Equatable {
    private var counts = [UInt64](repeating: 0, count: UpstreamFailure.allCases.count)

    subscript(failure: UpstreamFailure) -> UInt64 { counts[Self.place(failure)] }

    mutating func count(_ failure: UpstreamFailure) { counts[Self.place(failure)] &+= 1 }

    private static func place(_ failure: UpstreamFailure) -> Int {
        UpstreamFailure.allCases.firstIndex(of: failure) ?? 0
    }
}
