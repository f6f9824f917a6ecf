@testable import Sidecar

/// RecordedOrders — writes down what the flow orders, one line each, in the order of giving. What is sent to a link is
/// shown as commands: "send 1: GET k".
final class RecordedOrders: Orders {
    private var lines: [String] = []
    /// The bytes of the sends in a row to one link.
    private var sending: (link: LinkID, bytes: [UInt8])?
    var linksLeft = 100
    private var links: LinkID = 0
    var clients = 1
    var backlogs: [LinkID: Int] = [:]
    var arrivingNs: UInt64 = 0
    var charged = 0
    /// In the order of the orders.
    var unpinned: [ClientID] = []
    var takesBack = true
    var refused: UInt64 = 0
    /// Whether fences that pass are of interest: nothing waits for them otherwise.
    var hasFences = false
    /// What commands for a shared link are answered with.
    var refusal = ""
    /// The command table of the tests, by row.
    static let commands = [
        "get", "subscribe", "unsubscribe", "psubscribe", "punsubscribe", "monitor", "client", "reset", "hello", "info",
        "set", "ssubscribe", "sunsubscribe", "multi", "exec", "discard", "client|id",
        "client|unblock", "blpop", "watch", "unwatch", "select", "auth", "client|reply", "client|tracking",
        "client|setname", "readonly", "client|kill", "wait",
    ]

    static func row(_ name: String) -> UInt16 { UInt16(commands.firstIndex(of: name) ?? 0xFFFF) }

    /// All that was ordered since the last call.
    func take() -> [String] {
        flush()
        defer { lines = [] }
        return lines
    }

    private func note(_ line: String) {
        flush()
        lines.append(line)
    }

    private func flush() {
        guard let (link, bytes) = sending else { return }
        sending = nil
        for command in Self.commands(in: bytes) { lines.append("send \(link): \(command)") }
    }

    private static func commands(in bytes: [UInt8]) -> [String] {
        var words: [String] = []
        var commands: [String] = []
        var left = 0
        var lines = String(decoding: bytes, as: UTF8.self).split(on: "\r\n")[...]
        while let line = lines.popFirst(), !(line.isEmpty && lines.isEmpty) {
            if line.hasPrefix("*"), left == 0 {
                left = Int(line.dropFirst()) ?? 0
            } else if line.hasPrefix("$"), left > 0 {
                words.append(lines.popFirst() ?? "")
                left -= 1
                if left == 0 {
                    commands.append(words.joined(separator: " "))
                    words = []
                }
            } else {
                commands.append("raw \(line)")
            }
        }
        return commands
    }

    private func text(_ bytes: Bytes) -> String {
        String(decoding: bytes, as: UTF8.self).split(on: "\r\n").joined(separator: "|")
    }

    private func append(_ link: LinkID, _ bytes: some Sequence<UInt8>) {
        if sending?.link != link { flush() }
        if sending == nil { sending = (link, []) }
        sending?.bytes.append(contentsOf: bytes)
    }

    func openLink(_ address: Bytes) -> LinkID {
        guard linksLeft > 0 else { return 0 }
        linksLeft -= 1
        links += 1
        note("open \(links): \(text(address))")
        return links
    }

    func send(_ link: LinkID, _ bytes: Bytes) { append(link, bytes) }
    func sendBulk(_ link: LinkID, _ bytes: Bytes) {
        append(link, Array("$\(bytes.count)\r\n".utf8) + Array(bytes) + Array("\r\n".utf8))
    }
    func upstreamTook(ns: UInt64) {}
    func backlog(_ link: LinkID) -> Int { backlogs[link] ?? 0 }
    func arrivingNs(_ link: LinkID) -> UInt64 { arrivingNs }
    func closeLink(_ link: LinkID) { note("close link \(link)") }
    func abortLink(_ link: LinkID) { note("abort link \(link)") }
    func resetAtEnd(_ link: LinkID) { note("reset link \(link) at its end") }
    func finishLink(_ link: LinkID) { note("finish link \(link)") }

    func answer(_ slot: SlotID, _ reply: Bytes, fromRESP3: Bool, fence: FenceID) {
        note("answer \(slot)\(fromRESP3 ? " resp3" : "")\(behind(fence)): \(text(reply))")
    }
    func answerError(_ slot: SlotID, _ error: Bytes) { note("answer \(slot): \(text(error))") }
    func markSilent(_ client: ClientID) { note("mark \(client)") }
    func settleSilent(_ client: ClientID) { note("settle \(client)") }
    func answerMore(_ slot: SlotID, _ reply: Bytes, isFenced: Bool) {
        note("answer more \(slot)\(isFenced ? " behind a fence" : ""): \(text(reply))")
    }
    func tell(_ client: ClientID, _ bytes: Bytes, fence: FenceID) {
        note("tell \(client)\(behind(fence)): \(text(bytes))")
    }
    func passFence(_ fence: FenceID) {
        if hasFences { note("pass \(fence == .max ? "all fences" : "fence \(fence)")") }
    }
    func closeFlights() {
        if hasFences { note("close flights") }
    }
    private func behind(_ fence: FenceID) -> String { fence == 0 ? "" : " behind \(fence)" }
    func pin(_ client: ClientID, _ link: LinkID) { note("pin \(client) to \(link)") }
    func unpin(_ client: ClientID) -> Bool {
        if takesBack { unpinned.append(client) }
        return takesBack
    }
    func losePin(_ client: ClientID) { note("lose the pin of \(client)") }
    func failPin(_ client: ClientID, _ error: Bytes) { note("fail pin \(client): \(text(error))") }
    func closeClient(_ client: ClientID) { note("close client \(client)") }
    func closeSlot(_ slot: SlotID) { note("close slot \(slot)") }
    func hold(_ what: Hold) { note(what == .nothing ? "release" : what == .all ? "hold" : "hold commands") }
    func refuse(_ error: Bytes) { refusal = text(error) }

    func arm(_ flight: FlightID, ttlMs: Int64, sentNs: UInt64, keep: Keep) {
        note(
            "arm \(flight): ttl \(ttlMs) sent \(sentNs / 1_000_000)\(keep == .answer ? "" : keep == .value ? " if a value" : " not kept")"
        )
    }
    func fill(_ flight: FlightID, _ reply: Bytes) { note("fill \(flight): \(text(reply))") }
    /// How many more keys there is room for.
    var room = 1_000
    /// How many more may be under way.
    var window = Int.max
    func fetch(_ key: Bytes) -> FetchedAhead {
        if text(key).hasPrefix("never:") { return .never }
        guard room > 0 else { return .full }
        guard window > 0 else { return .later }
        room -= 1
        window -= 1
        note("fetch \(text(key))")
        return .begun
    }
    func timeOut(_ flight: FlightID, _ error: Bytes) { note("time out \(flight): \(text(error))") }
    func fail(_ flight: FlightID, _ error: Bytes) { note("fail \(flight): \(text(error))") }
    func drop(_ key: Bytes) { note("drop \(text(key))") }
    func dropAll() { note("drop all") }
    func bypass(_ isOn: Bool) { note("bypass \(isOn)") }
    private(set) var trustedUntilMs: UInt64 = 0
    private var trust = ""
    /* Said again with every PONG, for its time alone. */
    func trust(epoch: UInt32, trusted: Bool, untilNs: UInt64, serveSuspect: Bool) {
        trustedUntilMs = untilNs / 1_000_000
        let now = "trust \(epoch)\(trusted ? "" : " not")\(serveSuspect ? ", serve suspect" : "")"
        if now != trust { note(now) }
        trust = now
    }
    func setJoinable(ms: UInt64) { note("joinable \(ms)") }
    func setAudit(every: UInt64) { if every != 0 { note("audit one in \(every)") } }
    func setRules(_ rules: [FetchRule]) {
        for rule in rules { note("rule \(String(decoding: rule.pattern, as: UTF8.self)): ttl \(rule.ttlMs)") }
    }

    /// Keys that are acknowledged and wait, and those that were sent.
    var queuedKeys: [String] = []
    var flyingKeys: [String] = []
    func writesBehind() -> (queued: Int, flying: Int) { (queuedKeys.count, flyingKeys.count) }
    func sendWritesBehind(_ link: LinkID, count: Int, backlogMax: Int) -> Int {
        let sent = queuedKeys.prefix(count)
        queuedKeys.removeFirst(sent.count)
        flyingKeys += sent
        note("write \(link): \(sent.joined(separator: " "))")
        return sent.count
    }
    private var named: [UInt8] = []
    /// When it was first refused, by key; the test's time.
    var refusedMs: [String: UInt64] = [:]
    func writeBehindFlying() -> (key: Bytes?, refusedNs: UInt64) {
        named = Array((flyingKeys.first ?? "").utf8)
        let refused = refusedMs[flyingKeys.first ?? ""] ?? 0
        return (named.withUnsafeBufferPointer { Bytes(rebasing: $0[...]) }, refused * 1_000_000)
    }
    func writeBehindIs(_ outcome: WriteOutcome) {
        let key = flyingKeys.removeFirst()
        if outcome == .retried { queuedKeys.insert(key, at: 0) }
        note("\(key) is \(outcome)")
    }
    func unsendWritesBehind() {
        queuedKeys = flyingKeys + queuedKeys
        flyingKeys = []
        note("unsend")
    }

    /// Writes of an earlier process that fit.
    var restorable = Int.max
    func restoreWrite(place: UInt64, _ key: [UInt8], _ value: [UInt8], expireAtMs: UInt64) -> Bool {
        guard restorable > 0 else { return false }
        restorable -= 1
        let expiry = expireAtMs == .max ? "" : " until \(expireAtMs)"
        note("restore \(place): \(String(decoding: key, as: UTF8.self)) \(value.count) bytes\(expiry)")
        return true
    }
    func closeWriteBehind() { note("close write-behind") }
    func journalOn(next: UInt64) { note("journal on\(next == 0 ? "" : " from \(next)")") }
    /// What there is to be written, by its oldest place.
    var records: [UInt64] = []
    func takeJournal() -> JournalWork? {
        guard !records.isEmpty else { return nil }
        return .write(UnsafeRawBufferPointer(start: nil, count: 0), oldest: records.removeFirst(), next: 0)
    }
    func journalWritten() { note("journal written") }
    var journalIsShort = false
    func journalOff() { note("journal off") }
    func journalGone() { note("journal gone") }
    func forsakeJournal() { note("forsake") }

    func learnCommands(_ reply: Bytes) -> UInt32 {
        note("learn \(text(reply))")
        return 1
    }
    func commandName(_ row: UInt16) -> String? {
        Self.commands.indices.contains(Int(row)) ? Self.commands[Int(row)] : nil
    }
    func setUpstream(version: String, mode: String, role: String, protocolVersion: UInt8) {
        if !version.isEmpty { note("version \(version)") }
    }

    func charge(_ bytes: Int) { charged += bytes }
    func release(_ bytes: Int) { charged -= bytes }
    func measureBase() {}
    var clientCount: Int { clients }
    var commandsAnswered: UInt64 { 42 }

    func stats() -> [UInt64] { [0, 7, refused] }
    func metricOffset(_ name: String, _ labels: String) -> Int? {
        switch name {
        case "ferrite_keyspace_hits_total": 1
        case "ferrite_sidecar_connections_refused_total": 2
        default: nil
        }
    }
}

extension String {
    func split(on separator: String) -> [String] {
        var parts: [String] = []
        var part: [UInt8] = []
        let bytes = Array(utf8)
        let mark = Array(separator.utf8)
        var at = 0
        while at < bytes.count {
            if bytes[at...].starts(with: mark) {
                parts.append(String(decoding: part, as: UTF8.self))
                part = []
                at += mark.count
            } else {
                part.append(bytes[at])
                at += 1
            }
        }
        parts.append(String(decoding: part, as: UTF8.self))
        return parts
    }
}
