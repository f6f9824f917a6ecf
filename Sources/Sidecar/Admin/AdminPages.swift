/// AdminPages — what the admin socket answers: what steers a running sidecar, and what is shown to nobody else.
///
/// Over HTTP on a Unix socket of mode 0600: who may open the file may steer. What changes something is a POST, so that nobody
/// does it by looking.
struct AdminPages: HTTPPages {
    var loop: any Steered
    /// As SIGTERM does.
    var drain: @Sendable () -> Void

    var methods: String { "GET, POST" }

    func page(_ method: String, _ path: String, query: String) async -> HTTPPage {
        switch (method, path) {
        case ("GET", "/"):
            .text(
                """
                POST /flush[?pattern=P]   drop what is cached, or the keys that match
                POST /prefetch?pattern=P  fetch the keys that match
                POST /bypass?on | ?off    serve nothing from the cache until off
                POST /drain               as SIGTERM
                GET  /dead-letters        acknowledged writes that were given up, the latest last\n
                """)
        case ("POST", "/flush"): await flush(Self.value(of: "pattern", in: query))
        case ("POST", "/prefetch"): await prefetch(Self.value(of: "pattern", in: query))
        case ("POST", "/bypass"): await bypass(query)
        case ("POST", "/drain"): startDrain()
        case ("GET", "/dead-letters"): await deadLetters()
        case (_, "/flush"), (_, "/prefetch"), (_, "/bypass"), (_, "/drain"), (_, "/dead-letters"), (_, "/"):
            .text("not by \(method); see GET /\n", status: 405)
        default: .text("not found; see GET /\n", status: 404)
        }
    }

    private func flush(_ pattern: [UInt8]?) async -> HTTPPage {
        guard let pattern else {
            await loop.dropAll()
            return .text("flushed: nothing is cached any more\n")
        }
        return .text("flushed: \(await loop.drop(matching: pattern)) keys that match \(Self.show(pattern))\n")
    }

    private func prefetch(_ pattern: [UInt8]?) async -> HTTPPage {
        guard let pattern, !pattern.isEmpty else { return .text("which keys? ?pattern=user:*\n", status: 400) }
        return switch await loop.prefetch(pattern) {
        case .begun:
            .text("prefetch of \(Self.show(pattern)) has begun; ferritectl stats and the log show how far it is\n")
        case .underWay: .text("a prefetch is under way already\n", status: 409)
        case .bypassed: .text("bypass is on: what is fetched would not be kept\n", status: 409)
        case .unreachable:
            .text("the upstream is not connected, or does not answer: nothing can be fetched now\n", status: 503)
        }
    }

    private func bypass(_ query: String) async -> HTTPPage {
        guard query == "on" || query == "off" else { return .text("?on or ?off\n", status: 400) }
        let isInForce = await loop.bypass(query == "on")
        if query == "on" {
            return .text("bypass is on: nothing is served from the cache, until ferritectl bypass off\n")
        }
        return .text(
            isInForce
                ? "the fleet's bypass is still on: nothing is served from the cache, until the control key at the upstream says otherwise or is deleted\n"
                : "bypass is off: the cache serves again\n")
    }

    private func startDrain() -> HTTPPage {
        drain()
        return .text("draining: the sidecar ends when no client is connected, or after drain_timeout\n")
    }

    private func deadLetters() async -> HTTPPage {
        let (letters, nowNs) = await loop.deadLetters()
        if letters.isEmpty { return .text("no acknowledged write has been given up\n") }
        let lines = letters.map { letter in
            let seconds = (nowNs &- letter.atNs) / 1_000_000_000
            return "\(TimeSpan.show(seconds * 1_000)) ago  \(TOMLText.quote(letter.key))  \(letter.reason)\n"
        }
        return .text(lines.joined())
    }

    private static func show(_ pattern: [UInt8]) -> String { String(decoding: pattern, as: UTF8.self) }

    /// "a=b&c=d", percent-encoded; of any bytes, as keys are.
    private static func value(of name: String, in query: String) -> [UInt8]? {
        for part in query.split(separator: "&") {
            let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if pair[0] == name { return decoded(pair.count > 1 ? pair[1] : "") }
        }
        return nil
    }

    private static func decoded(_ text: Substring) -> [UInt8] {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), rest.count >= 2,
                let code = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
            {
                bytes.append(code)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(byte)
            }
        }
        return bytes
    }
}

/// What the admin socket may do to the loop; each comes back between two turns.
protocol Steered: Sendable {
    /// And prefetch begins anew.
    func dropAll() async
    /// Returns how many copies went.
    func drop(matching pattern: [UInt8]) async -> UInt64
    func prefetch(_ pattern: [UInt8]) async -> PrefetchAnswer
    /// Returns whether it is on now: the fleet's may be.
    func bypass(_ isOn: Bool) async -> Bool
    func deadLetters() async -> ([DeadLetter], nowNs: UInt64)
}
