/// LinkMachine — the handshake of one link, pipelined, but every answer looked at. Pure: replies in, bytes to send or a
/// verdict out.
///
///     round 1   HELLO <p> [AUTH u p] [SETNAME name]   [CLIENT TRACKING ON …]   INFO server   PING
///     round 2   HELLO without SETNAME, and the same            when the server knows HELLO but not all of its words
///     round 3   [AUTH]                                         when it does not know HELLO or the protocol: RESP2
///
/// Never NOLOOP: a write ends tracking of its key for the writer too, and scripts of our own must be announced. PING is
/// last because it is refused by a server that is loading, or wants AUTH, when HELLO and INFO are not.
struct LinkMachine {
    /// What the link is for.
    enum Purpose: Sendable {
        /// The shared link of cacheable reads and plain writes.
        case tracked(Tracking)
        /// A link of one fixed protocol version, 2 or 3: shared RESP2, or a client's own.
        case plain(protocolVersion: UInt8)
        /// Only to see whether the upstream lives.
        case probe
    }

    /// What is asked of the upstream.
    enum Tracking: Sendable, Equatable {
        /// Changes of what we read and say that we keep.
        case optIn
        /// Changes of all keys that begin so; none: of all keys. No prefix begins with another.
        case broadcast(prefixes: [[UInt8]])
        case off
    }

    struct Failure: Equatable {
        /// As the upstream put it, or the system.
        var reason: String
        var kind = UpstreamFailure.handshake

        var isBusy: Bool { kind == .busy }
        var isRefusal: Bool { kind == .refused }
        /// It is there, whatever it thinks of us: it has said so in words, or by TLS.
        var isAnswer: Bool { kind == .refused || kind == .tls }
    }

    enum Outcome: Equatable {
        case more
        case send([UInt8])
        case ready
        case failed(Failure)
    }

    private enum Step {
        case hello, tracking, information, auth, ping
    }

    private let purpose: Purpose
    private let credentials: Credentials
    /// Of the connection, at the upstream; empty for none.
    private let name: [UInt8]
    private var steps: [Step] = []
    private var next = 0
    private var round = 1
    private var helloRefusal: String?

    /// What the link speaks, once ready.
    private(set) var protocolVersion: UInt8 = 2
    private(set) var tracking = false
    /// Why not.
    private(set) var trackingReason = ""
    /// Of the server, as a number: two links with different ones lead to different servers, or to one that was restarted
    /// between. 0 if INFO server does not say.
    private(set) var runID = 0
    /// From INFO server; empty if it does not say.
    private(set) var serverVersion = ""
    /// "standalone", "cluster"; "master", "replica": as HELLO says; empty if it does not.
    private(set) var serverMode = ""
    private(set) var serverRole = ""
    /// What the upstream calls this connection, as CLIENT ID would say; nil if HELLO does not.
    private(set) var connectionID: Int64?

    init(_ purpose: Purpose, _ credentials: Credentials, name: [UInt8] = Array("ferrite-sidecar".utf8)) {
        self.purpose = purpose
        self.credentials = credentials
        self.name = name
    }

    /// Without credentials of ours, in the protocol that needs none to be chosen: its client brings its own.
    private var isForStrangers: Bool {
        if case .plain(protocolVersion: 2) = purpose { credentials.isEmpty } else { false }
    }

    /// Everything plain travels on it.
    private var isTracked: Bool {
        if case .tracked = purpose { true } else { false }
    }

    /// Empty: nothing is asked.
    private var trackingRequest: [UInt8] {
        guard case .tracked(let tracking) = purpose else { return [] }
        let words = ["CLIENT", "TRACKING", "ON"].map { Array($0.utf8) }
        return switch tracking {
        case .optIn: Credentials.encode(words + [Array("OPTIN".utf8)])
        case .broadcast(let prefixes):
            Credentials.encode(words + [Array("BCAST".utf8)] + prefixes.flatMap { [Array("PREFIX".utf8), $0] })
        case .off: []
        }
    }

    private var wanted: UInt8 {
        switch purpose {
        case .tracked, .probe: 3
        case .plain(let protocolVersion): protocolVersion
        }
    }

    /// The first bytes to send.
    mutating func begin() -> [UInt8] {
        next = 0
        helloRefusal = nil
        var bytes = credentials.hello(protocolVersion: wanted, name: round == 1 ? name : [])
        steps = [.hello]
        let request = trackingRequest
        if !request.isEmpty {
            bytes += request
            steps.append(.tracking)
        } else if isTracked {
            trackingReason = "tracking = \"off\""
        }
        bytes += Credentials.encode("INFO", "server") + Credentials.encode("PING")
        steps += [.information, .ping]
        return bytes
    }

    mutating func receive(_ bytes: Bytes) -> Outcome {
        guard next < steps.count else { return .failed(Failure(reason: "it answered more than it was asked")) }
        let reply = Reply(bytes)
        let step = steps[next]
        next += 1
        switch step {
        case .hello:
            if let failure = heardHello(reply) { return .failed(failure) }
        case .tracking:
            heardTracking(reply)
        case .information:
            if let text = reply.text, !reply.isError { heardInformation(text) }
        case .auth:
            if let error = reply.errorText { return .failed(Failure(reason: error, kind: .refused)) }
        case .ping:
            /* When HELLO was refused, what follows it is told by the next round. */
            if helloRefusal == nil, let failure = heardPing(reply) { return .failed(failure) }
        }
        guard next == steps.count else { return .more }
        if let refusal = helloRefusal { return nextRound(after: refusal) }
        if case .plain(protocolVersion: 3) = purpose, protocolVersion != 3 {
            return .failed(Failure(reason: "the upstream does not speak RESP3"))
        }
        return .ready
    }

    private mutating func heardHello(_ reply: Reply) -> Failure? {
        if let error = reply.errorText {
            if error.hasPrefix("NOAUTH"), isForStrangers { return nil }
            /* An older server's BUSY is a refusal of HELLO alone. */
            if Self.isBusy(error), !error.hasPrefix("BUSY") { return Failure(reason: error, kind: .busy) }
            if Self.isRefusal(error) { return Failure(reason: error, kind: .refused) }
            helloRefusal = error
            return nil
        }
        protocolVersion = reply.type == UInt8(ascii: "%") ? wanted : 2
        readGreeting(reply)
        return nil
    }

    private mutating func heardTracking(_ reply: Reply) {
        if protocolVersion < 3 || helloRefusal != nil {
            trackingReason = "the upstream does not speak RESP3"
            if let helloRefusal { trackingReason += " (\(helloRefusal))" }
        } else if reply.isOK {
            tracking = true
            trackingReason = ""
        } else {
            trackingReason = reply.errorText ?? "CLIENT TRACKING was not answered OK"
        }
    }

    private mutating func heardInformation(_ text: Bytes) {
        for line in text.split(whereSeparator: { $0 == UInt8(ascii: "\n") || $0 == UInt8(ascii: "\r") }).prefix(64) {
            let line = Reply.line(Bytes(rebasing: line))
            if line.hasPrefix("run_id:") { runID = line.dropFirst(7).hashValue }
            if line.hasPrefix("redis_version:") { serverVersion = String(line.dropFirst(14)) }
        }
    }

    /// What refuses PING alone is an answer: MISCONF, NOPERM, a server that knows no PING.
    private func heardPing(_ reply: Reply) -> Failure? {
        guard let error = reply.errorText else { return nil }
        if Self.isRefusal(error) {
            if error.hasPrefix("NOAUTH"), isForStrangers { return nil }
            return Failure(reason: error, kind: .refused)
        }
        guard Self.isBusy(error) else { return nil }
        if error.hasPrefix("BUSY"), !isTracked { return nil } /* SCRIPT KILL must find a way */
        /* A replica without its master reads no key, and does all else. */
        if error.hasPrefix("MASTERDOWN"), case .plain = purpose { return nil }
        return Failure(reason: error, kind: .busy)
    }

    /// It will have nobody like us.
    private static func isRefusal(_ error: String) -> Bool {
        ["NOAUTH", "WRONGPASS", "ERR max number of clients", "DENIED"].contains(where: error.hasPrefix)
    }

    /// It serves nobody else either.
    private static func isBusy(_ error: String) -> Bool {
        ["LOADING", "BUSY", "MASTERDOWN"].contains(where: error.hasPrefix)
    }

    private mutating func nextRound(after refusal: String) -> Outcome {
        let knowsNothing = refusal.hasPrefix("NOPROTO") || refusal.lowercased().contains("unknown command")
        if round == 1, !knowsNothing {
            round = 2
            return .send(begin())
        }
        if case .plain(protocolVersion: 3) = purpose { return .failed(Failure(reason: refusal)) }
        round = 3
        protocolVersion = 2
        tracking = false
        helloRefusal = nil
        next = 0
        steps = []
        var bytes: [UInt8] = []
        if !credentials.isEmpty {
            bytes += credentials.auth
            steps.append(.auth)
        }
        bytes += Credentials.encode("INFO", "server") + Credentials.encode("PING")
        steps += [.information, .ping]
        return .send(bytes)
    }

    /// Of HELLO's map, or of the flat array that RESP2 makes of it.
    private mutating func readGreeting(_ reply: Reply) {
        var reader = ReplyReader(reply.bytes)
        guard let (type, count) = reader.header(), count > 0, count <= 64 else { return }
        let pairs = type == UInt8(ascii: "%") ? count : type == UInt8(ascii: "*") ? count / 2 : 0
        for _ in 0..<pairs {
            guard let name = reader.text() else { return }
            if name.equals("proto") {
                guard let (type, version) = reader.header(), type == UInt8(ascii: ":") else { return }
                protocolVersion = version == 3 ? 3 : 2
            } else if name.equals("id") {
                guard let (type, id) = reader.header(), type == UInt8(ascii: ":") else { return }
                connectionID = id
            } else if name.equals("mode") {
                guard let mode = reader.text() else { return }
                serverMode = Reply.line(mode)
            } else if name.equals("role") {
                guard let role = reader.text() else { return }
                serverRole = Reply.line(role)
            } else if !reader.skip() {
                return
            }
        }
    }
}
