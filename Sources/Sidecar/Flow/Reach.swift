/// Reach — what is known of the upstream being there, and the errors that say so to clients.
struct Reach {
    /// No byte on any link for a while, and a fresh connection with its handshake has failed since: suspect entries are
    /// served (rule 6).
    var isUnreachable = false
    /// The last attempt to connect was turned away at once.
    var isTurnedAway = false
    /// When the node last gave a byte on a link whose handshake was done, or refused us in words.
    var lastHeardNs: UInt64 = 0
    /// Until then clients are held rather than failed, while the link is being made; 0: nobody waits.
    var waitUntilNs: UInt64 = 0
    /// "-ERR upstream HOST:PORT is unreachable: <reason>", or "refuses the sidecar"; in its own words while it is busy,
    /// for client libraries know those and try again.
    private(set) var error: [UInt8] = []
    /// It is there, but will not have us.
    var isRefused = false
    /// It is there, but loads its data or runs a script.
    var isBusy = false
    /// For a read that was not answered within read_timeout.
    let timeoutError: [UInt8]
    /// For a read that is not sent, since none is answered in time.
    let slowError: [UInt8]
    private let upstream: String

    init(_ upstream: String, readTimeoutNs: UInt64) {
        self.upstream = upstream
        timeoutError = Array("-ERR upstream \(upstream) did not answer within \(readTimeoutNs / 1_000_000) ms\r\n".utf8)
        slowError = Array(
            "-ERR upstream \(upstream) does not answer reads within \(readTimeoutNs / 1_000_000) ms: only few are sent\r\n"
                .utf8)
        say("not connected yet")
    }

    mutating func say(_ reason: String) { say(LinkMachine.Failure(reason: reason)) }

    mutating func say(_ failure: LinkMachine.Failure) {
        let line = Array(failure.reason.utf8).withUnsafeBufferPointer { Reply.line($0) }
        let what =
            switch failure.kind {
            case .refused: "refuses the sidecar"
            case .tls: "and the sidecar do not agree on TLS"
            default: "is unreachable"
            }
        isRefused = failure.isRefusal
        isBusy = failure.isBusy
        error = Array((isBusy ? "-\(line)\r\n" : "-ERR upstream \(upstream) \(what): \(line)\r\n").utf8)
    }
}
