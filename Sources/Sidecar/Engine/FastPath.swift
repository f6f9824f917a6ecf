/// FastPath — the only file that imports CFastPath: its events and orders in Swift's words, and nothing else.
///
/// A trivial value around the engine's pointer, so that using it costs the C call alone. Everything but `wake` is for
/// the loop thread. Bytes of an event live until the next turn; orders copy what they are given.
import CFastPath
import Glibc

/// A connection of the application. Zero means none, in every id.
typealias ClientID = fp_client
/// A place in a client's order of replies.
typealias SlotID = fp_slot
/// One fetch of one missing key.
typealias FlightID = fp_flight
typealias FenceID = fp_fence
/// A connection to the upstream.
typealias LinkID = fp_link
typealias Bytes = UnsafeBufferPointer<UInt8>

/// What an event is about; see CFastPath.h for what each carries.
enum EventKind {
    case miss, mgetKey, mget, command, ask, pin, clientGone, clientEnd, reply, push, linkUp, linkDown, wake
}

/// What of a fetch's answer may be stored.
enum Keep {
    case nothing, value
    /// That there is none, too.
    case answer
}

/// Which commands wait that need an upstream.
enum Hold {
    case nothing
    /// All but the fetches of GET and MGET.
    case commands
    case all
}

/// What became of a write that had been acknowledged.
enum WriteOutcome {
    case confirmed
    /// To be sent again.
    case retried
    case refused
}

/// The way a command wants to travel.
enum Lane {
    case tracked, resp2, pinned
}

/// What C could not decide alone.
struct Event {
    private let raw: fp_event

    @inline(__always)
    fileprivate init(_ raw: fp_event) { self.raw = raw }

    @inline(__always)
    var kind: EventKind {
        switch raw.kind {
        case .FP_EVENT_MISS: .miss
        case .FP_EVENT_MGET_KEY: .mgetKey
        case .FP_EVENT_MGET: .mget
        case .FP_EVENT_COMMAND: .command
        case .FP_EVENT_ASK: .ask
        case .FP_EVENT_PIN: .pin
        case .FP_EVENT_CLIENT_GONE: .clientGone
        case .FP_EVENT_CLIENT_END: .clientEnd
        case .FP_EVENT_REPLY: .reply
        case .FP_EVENT_PUSH: .push
        case .FP_EVENT_LINK_UP: .linkUp
        case .FP_EVENT_LINK_DOWN: .linkDown
        case .FP_EVENT_WAKE: .wake
        }
    }

    @inline(__always)
    var lane: Lane {
        switch raw.lane {
        case .FP_LANE_TRACKED: .tracked
        case .FP_LANE_RESP2: .resp2
        case .FP_LANE_PINNED: .pinned
        }
    }

    @inline(__always) var bytes: Bytes { Bytes(start: raw.bytes, count: raw.bytes == nil ? 0 : Int(raw.length)) }
    @inline(__always) var ticket: UInt64 { raw.ticket }
    @inline(__always) var client: ClientID { raw.client }
    @inline(__always) var link: LinkID { raw.link }
    /// 2 or 3: the client's.
    @inline(__always) var protocolVersion: UInt8 { raw.protocol }
    /// First byte of a reply or push.
    @inline(__always) var type: UInt8 { raw.type }
    /// Row of the command table.
    @inline(__always) var command: UInt16 { raw.command }
    /// Nothing is changed by it at the upstream: it may be failed, and told so, whatever has become of it.
    @inline(__always) var isPureRead: Bool { raw.command_kind == Self.readKind || raw.command_kind == Self.passKind }
    /// Of a miss: by its rule the key is not kept.
    @inline(__always) var isUncached: Bool { raw.uncached }
    /// Of a link that is down: an errno, 0 for an orderly close; negative where TLS has ended it and `bytes` say why.
    @inline(__always) var error: Int32 { raw.error }
    var isOfCertificate: Bool { raw.error == FP_ERROR_CERTIFICATE }
    /// Certificates included.
    var isOfTLS: Bool { raw.error < 0 }

    /// It may write keys that the command table cannot name: a script, a module's command.
    @inline(__always) var mayWriteUnknownKeys: Bool { raw.command_kind == Self.unkeyedKind }

    /* COMMAND_READ, COMMAND_PASS and COMMAND_UNKEYED of enum command_kind in resp/commands.h. */
    private static var readKind: UInt8 { 0 }
    private static var passKind: UInt8 { 2 }
    private static var unkeyedKind: UInt8 { 4 }
}

/// The events of one turn and the time at which they were gathered.
struct Batch {
    private let events: UnsafePointer<fp_event>?
    let count: Int
    let nowNs: UInt64

    init(_ batch: fp_batch) {
        events = batch.events
        count = batch.events == nil ? 0 : Int(batch.count)
        nowNs = batch.now_ns
    }

    /// `index` must be below `count`.
    @inline(__always)
    subscript(index: Int) -> Event { Event(events.unsafelyUnwrapped[index]) }
}

/// A failure of the engine to start: a sentence with cause and remedy.
struct EngineError: Error, CustomStringConvertible {
    let description: String
    /// Of a listener: this machine does not have the address, or nothing of its family.
    private(set) var isNoAddressOfOurs = false

    init(_ description: String) { self.description = description }

    fileprivate init(_ error: fp_error?, while doing: String) {
        description = error.map { String(cString: $0) } ?? "\(doing) failed"
    }

    /// Of a listener: with what can be done about it.
    fileprivate init(_ error: fp_error?, while doing: String, ifTaken: String, else otherwise: String) {
        let what = EngineError(error, while: doing).description
        func failed(by code: Int32) -> Bool { what.hasSuffix(String(cString: strerror(code))) }
        description = what + "; " + (failed(by: EADDRINUSE) ? ifTaken : otherwise)
        isNoAddressOfOurs = failed(by: EADDRNOTAVAIL) || failed(by: EAFNOSUPPORT)
    }
}

struct EngineSettings {
    var localMemoryBytes: UInt64
    /// What it may be raised to while the process runs; 0: it may not.
    var localMemoryBytesMax: UInt64 = 0
    var clientsMax: UInt32
    var linksMax: UInt32
    var idleTimeoutMs: UInt32
    var linkTimeoutMs: UInt32
    var network: SidecarConfig.Network
    var eviction: SidecarConfig.Eviction
    var allowAdmin: Bool
    /// Of acknowledged writes that are not carried out yet; 0: there are none.
    var behindBytesMax: UInt64
    /// Of local_memory: what the store may hold for prefetch to go on.
    var prefetchPercent: UInt32
    /// Of the sidecar itself, at the upstream.
    var username: String
    var password: Secret
    /// Of hashing and of random eviction; 0: the kernel's choice.
    var seed: UInt64 = 0
    /// Tests: an `fp_sim` in place of the system's network and clock.
    var simulation: OpaquePointer?
}

/* Sendable for `wake`; the rest is kept to the loop thread by `LoopThread`. */
struct FastPath: Orders, @unchecked Sendable {
    /// For the simulator's look at the inside.
    let engine: OpaquePointer

    /// Any thread.
    init(_ settings: EngineSettings) throws(EngineError) {
        var config = fp_config()
        fp_config_init(&config)
        config.local_memory = settings.localMemoryBytes
        config.local_memory_max = settings.localMemoryBytesMax
        config.clients_max = settings.clientsMax
        config.links_max = settings.linksMax
        config.idle_timeout_ms = settings.idleTimeoutMs
        config.link_timeout_ms = settings.linkTimeoutMs
        config.allow_admin = settings.allowAdmin
        config.behind_bytes_max = settings.behindBytesMax
        config.prefetch_percent = settings.prefetchPercent
        config.seed = settings.seed
        config.sim = settings.simulation
        config.network =
            switch settings.network {
            case .auto: .FP_NETWORK_AUTO
            case .ioUring: .FP_NETWORK_IO_URING
            case .epoll: .FP_NETWORK_EPOLL
            }
        config.eviction =
            switch settings.eviction {
            case .lru: .FP_EVICTION_LRU
            case .lfu: .FP_EVICTION_LFU
            case .random: .FP_EVICTION_RANDOM
            }
        var error: fp_error?
        guard let engine = fp_create(&config, &error) else { throw EngineError(error, while: "creating the engine") }
        self.engine = engine
        if !settings.password.isEmpty {
            let username = settings.username.isEmpty ? "default" : settings.username
            fp_identity(engine, username, settings.password.reveal())
        }
    }

    /// Makes the calling thread the loop thread.
    func attach() throws(EngineError) {
        var error: fp_error?
        guard fp_attach(engine, &error) else { throw EngineError(error, while: "starting the network engine") }
    }

    /// Listens on a numeric address; returns the port, the kernel's choice for 0. `isFresh`: its clients are never answered
    /// from the cache.
    func listen(address: String, port: UInt16, isFresh: Bool = false) throws(EngineError) -> UInt16 {
        var error: fp_error?
        var bound: UInt16 = 0
        guard fp_listen_tcp(engine, address, port, isFresh, &bound, &error) else {
            throw EngineError(
                error, while: "listening on \(address) port \(port)",
                ifTaken: isFresh
                    ? "another process has that port; choose another with fresh_port"
                    : "another process has that port; choose another with port (--port)",
                else: "bind (--bind) and \(isFresh ? "fresh_port" : "port (--port)") say where")
        }
        return bound
    }

    func listen(unixSocket path: String) throws(EngineError) {
        var error: fp_error?
        guard fp_listen_unix(engine, path, &error) else {
            throw EngineError(
                error, while: "listening on \(path)",
                ifTaken:
                    "another process listens there, or it is no socket; choose another with unix_socket (--unix-socket)",
                else: "unix_socket (--unix-socket) says where")
        }
    }

    func unlisten() { fp_unlisten(engine) }
    func destroy() { fp_destroy(engine) }

    var networkName: String { String(cString: fp_network_name(engine)) }
    var networkReason: String { String(cString: fp_network_reason(engine)) }

    /// Does every byte of I/O until there is an event or the deadline (monotonic nanoseconds) has passed.
    @inline(__always)
    func turn(until deadlineNs: UInt64) -> Batch { Batch(fp_turn(engine, deadlineNs)) }

    /// Ends the turn. Any thread.
    func wake() { fp_wake(engine) }

    var nowNs: UInt64 { fp_now(engine) }

    /// From now on local_memory is this, or what comes nearest to it; returns what it is.
    func resize(localMemoryBytes: UInt64) -> UInt64 { fp_resize(engine, localMemoryBytes) }

    // MARK: links

    /// Links that are opened from now on speak TLS.
    func speakTLS(_ context: TLSContext) {
        guard let tls = context.take() else { return }
        fp_link_tls(engine, tls)
    }
    func openLink(_ address: Bytes) -> LinkID {
        fp_link_open(engine, address.baseAddress, UInt32(truncatingIfNeeded: address.count))
    }
    @inline(__always)
    func send(_ link: LinkID, _ bytes: Bytes) { fp_link_send(engine, link, bytes.baseAddress, bytes.count) }
    @inline(__always)
    func sendBulk(_ link: LinkID, _ bytes: Bytes) { fp_link_send_bulk(engine, link, bytes.baseAddress, bytes.count) }
    @inline(__always)
    func upstreamTook(ns: UInt64) { fp_upstream_took(engine, ns) }
    @inline(__always)
    func backlog(_ link: LinkID) -> Int { fp_link_backlog(engine, link) }
    @inline(__always)
    func arrivingNs(_ link: LinkID) -> UInt64 { fp_link_arriving(engine, link) }
    func closeLink(_ link: LinkID) { fp_link_close(engine, link) }
    func abortLink(_ link: LinkID) { fp_link_abort(engine, link) }
    func resetAtEnd(_ link: LinkID) { fp_link_reset_at_end(engine, link) }
    func finishLink(_ link: LinkID) { fp_link_finish(engine, link) }

    // MARK: clients

    @inline(__always)
    func answer(_ slot: SlotID, _ reply: Bytes, fromRESP3: Bool, fence: FenceID) {
        fp_answer(engine, slot, reply.baseAddress, reply.count, fromRESP3, fence)
    }
    func answerError(_ slot: SlotID, _ error: Bytes) {
        fp_answer_error(engine, slot, error.baseAddress, error.count)
    }
    func markSilent(_ client: ClientID) { fp_silent_mark(engine, client) }
    func settleSilent(_ client: ClientID) { fp_silent_settle(engine, client) }
    func answerMore(_ slot: SlotID, _ reply: Bytes, isFenced: Bool) {
        fp_answer_more(engine, slot, reply.baseAddress, reply.count, isFenced)
    }
    func tell(_ client: ClientID, _ bytes: Bytes, fence: FenceID) {
        fp_tell(engine, client, bytes.baseAddress, bytes.count, fence)
    }
    func passFence(_ fence: FenceID) { fp_fence_passed(engine, fence) }
    func pin(_ client: ClientID, _ link: LinkID) { fp_pin(engine, client, link) }
    func unpin(_ client: ClientID) -> Bool { fp_unpin(engine, client) }
    func losePin(_ client: ClientID) { fp_pin_lost(engine, client) }
    func failPin(_ client: ClientID, _ error: Bytes) { fp_pin_fail(engine, client, error.baseAddress, error.count) }
    func closeClient(_ client: ClientID) { fp_client_close(engine, client) }
    func closeSlot(_ slot: SlotID) { fp_slot_close(engine, slot) }
    func hold(_ what: Hold) {
        switch what {
        case .nothing: fp_hold(engine, .FP_HOLD_NOTHING)
        case .commands: fp_hold(engine, .FP_HOLD_COMMANDS)
        case .all: fp_hold(engine, .FP_HOLD_ALL)
        }
    }
    func refuse(_ error: Bytes) { fp_refuse(engine, error.baseAddress, error.count) }

    // MARK: the store

    @inline(__always)
    func arm(_ flight: FlightID, ttlMs: Int64, sentNs: UInt64, keep: Keep) {
        let kept: fp_keep =
            switch keep {
            case .nothing: .FP_KEEP_NOTHING
            case .value: .FP_KEEP_VALUE
            case .answer: .FP_KEEP_ANSWER
            }
        fp_arm(engine, flight, ttlMs, sentNs, kept)
    }
    @inline(__always)
    func fill(_ flight: FlightID, _ reply: Bytes) { fp_fill(engine, flight, reply.baseAddress, reply.count) }
    func fetch(_ key: Bytes) -> FetchedAhead {
        switch fp_fetch(engine, key.baseAddress, key.count) {
        case .FP_AHEAD_BEGUN: .begun
        case .FP_AHEAD_NEVER: .never
        case .FP_AHEAD_LATER: .later
        case .FP_AHEAD_FULL: .full
        }
    }
    func timeOut(_ flight: FlightID, _ error: Bytes) {
        fp_flight_timeout(engine, flight, error.baseAddress, error.count)
    }
    func fail(_ flight: FlightID, _ error: Bytes) { fp_flight_fail(engine, flight, error.baseAddress, error.count) }
    func closeFlights() { fp_flights_close(engine) }
    @inline(__always)
    func drop(_ key: Bytes) { fp_drop(engine, key.baseAddress, key.count) }
    func dropAll() { fp_drop_all(engine) }
    /// A slice of a walk over all copies, from 0; `next` is 0 at its end.
    func drop(matching pattern: [UInt8], from cursor: UInt64, steps: UInt32) -> (next: UInt64, dropped: UInt64) {
        var dropped: UInt64 = 0
        let next = pattern.withUnsafeBufferPointer {
            fp_drop_matching(engine, $0.baseAddress, $0.count, cursor, steps, &dropped)
        }
        return (next, dropped)
    }
    /// A slice of a walk over all copies, from 0; `next` is 0 at its end. `body` is told of those that are at least so hot;
    /// their names are valid in it only.
    func hotNames(
        atLeast heat: UInt8, from cursor: UInt64, steps: UInt32, _ body: (_ name: Bytes, _ heat: UInt8) -> Void
    ) -> UInt64 {
        withUnsafeTemporaryAllocation(of: fp_hot_name.self, capacity: Int(steps)) { names in
            var count: UInt32 = 0
            let next = fp_hot_names(engine, heat, cursor, steps, names.baseAddress, &count)
            for name in names[..<Int(count)] { body(Bytes(start: name.bytes, count: Int(name.length)), name.heat) }
            return next
        }
    }
    func bypass(_ isOn: Bool) { fp_bypass(engine, isOn) }
    func trust(epoch: UInt32, trusted: Bool, untilNs: UInt64, serveSuspect: Bool) {
        fp_trust(engine, epoch, trusted, untilNs, serveSuspect)
    }
    func setJoinable(ms: UInt64) { fp_joinable(engine, ms) }

    func setAudit(every: UInt64) { fp_audit(engine, every) }
    func setRules(_ rules: [FetchRule]) {
        let patterns = rules.flatMap(\.pattern)
        patterns.withUnsafeBufferPointer { bytes in
            var at = 0
            let raw = rules.map { rule in
                defer { at += rule.pattern.count }
                return fp_rule(
                    pattern: bytes.baseAddress.map { $0 + at }, pattern_length: UInt32(rule.pattern.count),
                    ttl_ms: rule.ttlMs, stale_ms: rule.staleMs, caches: rule.caches, fills_behind: rule.fillsBehind,
                    writes_behind: rule.writesBehind)
            }
            fp_rules(engine, raw, UInt32(raw.count))
        }
    }

    // MARK: write-behind

    @inline(__always)
    func writesBehind() -> (queued: Int, flying: Int) {
        let raw = fp_behind_look(engine)
        return (Int(raw.queued), Int(raw.flying))
    }
    func sendWritesBehind(_ link: LinkID, count: Int, backlogMax: Int) -> Int {
        Int(fp_behind_send(engine, link, UInt32(clamping: count), backlogMax))
    }
    func writeBehindFlying() -> (key: Bytes?, refusedNs: UInt64) {
        let raw = fp_behind_flying(engine)
        return (raw.bytes.map { Bytes(start: $0, count: Int(raw.length)) }, raw.refused_ns)
    }
    func writeBehindIs(_ outcome: WriteOutcome) {
        let raw: fp_write_outcome =
            switch outcome {
            case .confirmed: .FP_WRITE_CONFIRMED
            case .retried: .FP_WRITE_RETRIED
            case .refused: .FP_WRITE_REFUSED
            }
        fp_behind_done(engine, raw)
    }
    func unsendWritesBehind() { fp_behind_unsend(engine) }
    func closeWriteBehind() { fp_behind_close(engine) }

    // MARK: its journal

    func restoreWrite(place: UInt64, _ key: [UInt8], _ value: [UInt8], expireAtMs: UInt64) -> Bool {
        fp_journal_restore(engine, place, key, key.count, value, value.count, expireAtMs)
    }
    func journalOn(next: UInt64) { fp_journal_on(engine, next) }
    func takeJournal() -> JournalWork? {
        var batch = fp_journal_batch()
        guard fp_journal_take(engine, &batch) else { return nil }
        return .write(
            UnsafeRawBufferPointer(start: batch.bytes, count: batch.length), oldest: batch.oldest, next: batch.next)
    }
    func journalWritten() { fp_journal_written(engine) }
    var journalIsShort: Bool { fp_journal_is_short(engine) }
    func journalOff() { fp_journal_off(engine) }
    func journalGone() { fp_journal_gone(engine) }
    func forsakeJournal() { fp_journal_forsake(engine) }

    // MARK: one key's life

    /// An empty key ends it.
    func trace(_ key: [UInt8]) { key.withUnsafeBufferPointer { fp_trace(engine, $0.baseAddress, $0.count) } }

    func takeTrace() -> [KeyEvent] {
        var records: UnsafePointer<fp_trace_record>?
        let count = fp_trace_take(engine, &records)
        return UnsafeBufferPointer(start: records, count: Int(count)).map { KeyEvent($0.kind, $0.number) }
    }

    // MARK: the command table, memory, numbers

    func learnCommands(_ reply: Bytes) -> UInt32 { fp_commands_learn(engine, reply.baseAddress, reply.count) }
    func commandName(_ row: UInt16) -> String? {
        guard let name = fp_command_name(engine, row), let subcommand = fp_command_subcommand(engine, row) else {
            return nil
        }
        return String(cString: name) + (subcommand.pointee == 0 ? "" : "|" + String(cString: subcommand))
    }
    func setUpstream(version: String, mode: String, role: String, protocolVersion: UInt8) {
        version.withCString { version in
            mode.withCString { mode in
                role.withCString { role in
                    var upstream = fp_upstream(version: version, mode: mode, role: role, protocol: protocolVersion)
                    fp_upstream_is(engine, &upstream)
                }
            }
        }
    }
    func charge(_ bytes: Int) { fp_charge(engine, bytes) }
    func release(_ bytes: Int) { fp_release(engine, bytes) }
    func measureBase() { fp_measure_base(engine) }
    var clientCount: Int { Int(fp_client_count(engine)) }

    var commandsAnswered: UInt64 { calls().reduce(0) { $0 &+ $1.answered &+ $1.failed } }

    /// Of the commands that came at all.
    func calls() -> [CommandCalls] {
        var all: [CommandCalls] = []
        var raw = fp_calls()
        var row: UInt32 = 0
        while fp_calls_read(engine, row, &raw) {
            row += 1
            let outcomes = UnsafeBufferPointer(start: raw.outcomes, count: Int(FP_OUTCOME_COUNT))
            guard outcomes.contains(where: { $0 != 0 }) else { continue }
            let subcommand = String(cString: raw.subcommand)
            let name = String(cString: raw.name) + (subcommand.isEmpty ? "" : "|") + subcommand
            all.append(CommandCalls(name: name, family: String(cString: raw.family), outcomes: Array(outcomes)))
        }
        return all
    }

    func stats() -> [UInt64] {
        let count = Int(fp_stats_count())
        return [UInt64](unsafeUninitializedCapacity: count) { values, initialized in
            if let base = values.baseAddress { fp_stats_read(engine, base) }
            initialized = count
        }
    }

    func metricOffset(_ name: String, _ labels: String) -> Int? {
        var count: UInt32 = 0
        guard let table = fp_metric_table(&count) else { return nil }
        for row in UnsafeBufferPointer(start: table, count: Int(count))
        where String(cString: row.name) == name && String(cString: row.labels) == labels {
            return Int(row.offset)
        }
        return nil
    }
}
