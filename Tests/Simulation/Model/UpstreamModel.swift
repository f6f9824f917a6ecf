/// UpstreamModel — Redis 7.0 as far as the sidecar can tell, in memory and in one thread: strings, lists and hashes in two
/// databases, expiry, MULTI and WATCH, scripts as atomic writes of unknown keys, blocking pops, pub/sub, and tracking in
/// its three modes with pushes in exactly the order in which Redis writes them (src/tracking.c):
///
/// - a change is announced to all who track its key at the moment of the change, and ends their tracking;
/// - to the connection whose command made it, behind that command's reply (EXEC's, for a transaction);
/// - a key is registered when a read of it has run, under OPTIN only right behind CLIENT CACHING YES.
///
/// `ModelTests` compares it with a real redis-server.
final class UpstreamModel {
    enum Content: Equatable {
        case string([UInt8])
        case list([[UInt8]])
        case hash([[UInt8]: [UInt8]])
    }

    struct Stored {
        var content: Content
        /// UInt64.max: never.
        var expiresNs: UInt64
    }

    enum Tracking: Equatable {
        case off, everything, optIn
        case broadcast([[UInt8]])
    }

    final class Connection {
        let id: Int
        var out: [UInt8] = []
        var protocolVersion = 2
        var database = 0
        var tracking = Tracking.off
        var mayCache = false
        var isAuthenticated: Bool
        var queued: [[[UInt8]]]?
        var isQueueBroken = false
        /// `wasOver`: it had expired, and was still there, when it was watched; its end is no change then.
        var watched: [(database: Int, key: [UInt8], wasOver: Bool)] = []
        var isDirty = false
        /// CLIENT REPLY OFF, and SKIP: of the next command.
        var isMute = false
        var skipsNext = false
        var skips = false
        var isUnanswered: Bool { isMute || skips }
        /// What an unanswered command has sent nevertheless: pushes, and what is like them in RESP2.
        var unmuted: [UInt8] = []
        /// `place`: who blocked before is served before.
        var blocked: (keys: [[UInt8]], deadlineNs: UInt64, place: Int)?
        var channels: Set<[UInt8]> = []
        /// Each a prefix and "*".
        var patterns: Set<[UInt8]> = []
        var pendingKeys: [[UInt8]?] = []
        var input = CommandReader()
        fileprivate(set) var isClosed = false

        init(id: Int, isAuthenticated: Bool) {
            self.id = id
            self.isAuthenticated = isAuthenticated
        }
    }

    // MARK: what it is like

    var runID = 1
    var speaksTracking = true
    var refusesTracking = false
    var isLoading = false
    /// The last save has failed.
    var cannotSave = false
    /// maxclients is reached.
    var isFull = false
    var password: [UInt8]?
    var tableMax = Int.max

    var nowNs: UInt64 = second
    var truth: Truth
    var databases: [[[UInt8]: Stored]] = [[:], [:]]
    /// In the order in which they came.
    var connections: [Connection] = []
    var nextID = 1
    var table: [[UInt8]: [Int]] = [:]
    var tableOrder: [[UInt8]] = []
    var broadcast: [[UInt8]] = []
    var executing: Connection?
    var ready: [(database: Int, key: [UInt8])] = []
    var blockings = 0
    var isInExec = false
    var unblocked: [Connection] = []
    let keyCount: Int
    /// Those that said QUIT: they are closed behind what is in `out`.
    var quitters: [Connection] = []
    /// Of how many kinds its pushes were; for coverage.
    var pushes = 0

    init(keys: Int) {
        keyCount = keys
        truth = Truth(keys: keys)
    }

    // MARK: connections

    func connect() -> Connection {
        let connection = Connection(id: nextID, isAuthenticated: password == nil)
        nextID += 1
        connections.append(connection)
        return connection
    }

    func close(_ connection: Connection) {
        connection.isClosed = true
        connection.blocked = nil
        connections.removeAll { $0 === connection }
    }

    /// As at maxclients: it is told so, and gone.
    func refuse(_ connection: Connection) {
        connection.out.append(text: "-ERR max number of clients reached\r\n")
        close(connection)
    }

    /// Bytes have come.
    func receive(_ bytes: some Sequence<UInt8>, on connection: Connection) {
        connection.input.append(bytes)
        run(connection)
        goOn()
    }

    /// The peer has sent all it will: what could be carried out has been answered; what blocks, and what waits behind it,
    /// ends unanswered.
    func end(_ connection: Connection) {
        close(connection)
    }

    func run(_ connection: Connection) {
        while !connection.isClosed, connection.blocked == nil {
            switch connection.input.next() {
            case .partial: return
            case .malformed:
                connection.out.append(text: "-ERR Protocol error\r\n")
                return close(connection)
            case .command(let words):
                execute(words, on: connection)
            }
        }
    }

    /// One command of a client that is no wire: a writer elsewhere. Its reply.
    func perform(_ words: [[UInt8]], on connection: Connection) -> [UInt8] {
        connection.out.removeAll(keepingCapacity: true)
        execute(words, on: connection)
        goOn()
        return connection.out
    }

    // MARK: time

    /// The next moment at which something happens by itself.
    var nextDeadlineNs: UInt64 {
        var next = UInt64.max
        for connection in connections {
            if let blocked = connection.blocked { next = min(next, blocked.deadlineNs) }
        }
        return next
    }

    /// Blocked clients whose time is over.
    func passTime() {
        for connection in connections {
            guard let blocked = connection.blocked, blocked.deadlineNs <= nowNs else { continue }
            connection.blocked = nil
            truth.begin()
            if !connection.isUnanswered { nullArray(connection) }
            run(connection)
        }
        goOn()
    }

    /// Active expiry: some keys that nobody looks at.
    func expireSome(_ chance: inout Chance) {
        for database in 0..<2 {
            for key in databases[database].keys.sorted(by: { $0.lexicographicallyPrecedes($1) })
            where databases[database][key].map({ $0.expiresNs <= nowNs }) == true && chance.oneIn(2) {
                truth.begin()
                _ = expireIfNeeded(database, key)
            }
        }
    }

    // MARK: failover

    struct Snapshot {
        var databases: [[[UInt8]: Stored]]
    }

    func snapshot() -> Snapshot { Snapshot(databases: databases) }

    /// Another server takes its place, with what it has. All connections must be closed.
    func failOver(to snapshot: Snapshot?) {
        databases = snapshot?.databases ?? [[:], [:]]
        restart()
        truth.begin()
        for key in 0..<keyCount { record([UInt8]("k", key)) }
    }

    func restart() {
        for connection in connections { connection.isClosed = true }
        connections.removeAll()
        table.removeAll()
        tableOrder.removeAll()
        runID += 1
    }

    // MARK: keys

    static func keyNumber(_ key: [UInt8]) -> Int? {
        guard key.first == UInt8(ascii: "k"), key.count > 1 else { return nil }
        var number = 0
        for byte in key.dropFirst() {
            guard byte >= 48, byte <= 57 else { return nil }
            number = number * 10 + Int(byte - 48)
        }
        return number
    }

    func record(_ key: [UInt8]) {
        guard let number = Self.keyNumber(key), number < keyCount else { return }
        let stored = databases[0][key]
        var value: UInt64 = 0
        if let stored {
            if case .string(let bytes) = stored.content { value = Truth.hash(bytes) } else { value = 2 }
        }
        truth.record(key: number, value: value, nowNs: nowNs, expiresNs: stored?.expiresNs ?? .max)
    }

    func isOver(_ database: Int, _ key: [UInt8]) -> Bool { databases[database][key]?.expiresNs ?? .max <= nowNs }

    func expireIfNeeded(_ database: Int, _ key: [UInt8]) -> Bool {
        guard let stored = databases[database][key], stored.expiresNs <= nowNs else { return false }
        databases[database][key] = nil
        changed(database, key)
        return true
    }

    func look(_ connection: Connection, _ key: [UInt8]) -> Stored? {
        _ = expireIfNeeded(connection.database, key)
        return databases[connection.database][key]
    }

    func put(_ connection: Connection, _ key: [UInt8], _ content: Content, expiresNs: UInt64 = .max) {
        databases[connection.database][key] = Stored(content: content, expiresNs: expiresNs)
        changed(connection.database, key)
    }

    func remove(_ connection: Connection, _ key: [UInt8]) -> Bool {
        guard look(connection, key) != nil else { return false }
        databases[connection.database][key] = nil
        changed(connection.database, key)
        return true
    }

    /* signalModifiedKey */
    func changed(_ database: Int, _ key: [UInt8]) {
        if database == 0 { record(key) }
        for connection in connections where !connection.watched.isEmpty {
            for index in connection.watched.indices
            where connection.watched[index].database == database && connection.watched[index].key == key {
                if connection.watched[index].wasOver, databases[database][key] == nil {
                    connection.watched[index].wasOver = false
                } else {
                    connection.isDirty = true
                }
            }
        }
        announce(key)
    }

    // MARK: commands

    enum Command {
        case hello, auth, ping, client, info, command, select, reset, quit
        case get, set, setEX, mget, mset, del, exists, pttl, pexpire, persist, append, getDel, getEX, rename, copy, move
        case type, strlen, getRange, setRange, incr, flushAll, flushDB, swapDB, dbSize, scan, getSet, sort, sortRO
        case lpush, rpush, lpop, llen, blpop, hset, hget, xpending
        case multi, exec, discard, watch, unwatch, eval, evalRO, publish, subscribe, unsubscribe
        case psubscribe, punsubscribe

        /// While the last save has failed: writes, and PING.
        var isRefusedUnsaved: Bool {
            switch self {
            case .ping, .set, .setEX, .mset, .del, .pexpire, .persist, .append, .getDel, .getEX, .rename, .copy, .move,
                .setRange, .incr, .flushAll, .flushDB, .swapDB, .getSet, .sort, .lpush, .rpush, .lpop, .blpop, .hset,
                .eval:
                true
            default:
                false
            }
        }

        /// Writes in whose words there is no place for a token.
        var isChangeWithoutToken: Bool {
            switch self {
            case .pexpire, .persist, .getDel, .getEX, .rename, .copy, .move, .flushAll, .swapDB, .incr: true
            default: false
            }
        }
    }

    static let commands: [[UInt8]: Command] = {
        let names: [(String, Command)] = [
            ("HELLO", .hello), ("AUTH", .auth), ("PING", .ping), ("CLIENT", .client), ("INFO", .info),
            ("COMMAND", .command), ("SELECT", .select), ("RESET", .reset), ("QUIT", .quit), ("GET", .get),
            ("SET", .set),
            ("PSETEX", .setEX), ("MGET", .mget), ("MSET", .mset), ("DEL", .del), ("EXISTS", .exists), ("PTTL", .pttl),
            ("PEXPIRE", .pexpire), ("PERSIST", .persist), ("APPEND", .append), ("GETDEL", .getDel), ("GETEX", .getEX),
            ("RENAME", .rename), ("COPY", .copy), ("MOVE", .move), ("TYPE", .type), ("STRLEN", .strlen),
            ("FLUSHALL", .flushAll), ("FLUSHDB", .flushDB), ("SWAPDB", .swapDB), ("DBSIZE", .dbSize), ("SCAN", .scan),
            ("GETSET", .getSet), ("LPUSH", .lpush), ("RPUSH", .rpush), ("LPOP", .lpop), ("LLEN", .llen),
            ("BLPOP", .blpop), ("HSET", .hset), ("HGET", .hget), ("XPENDING", .xpending), ("MULTI", .multi),
            ("EXEC", .exec), ("DISCARD", .discard), ("WATCH", .watch), ("UNWATCH", .unwatch), ("EVAL", .eval),
            ("EVAL_RO", .evalRO), ("SORT", .sort), ("SORT_RO", .sortRO), ("GETRANGE", .getRange),
            ("SETRANGE", .setRange), ("INCR", .incr),
            ("PUBLISH", .publish), ("SUBSCRIBE", .subscribe), ("UNSUBSCRIBE", .unsubscribe),
            ("PSUBSCRIBE", .psubscribe), ("PUNSUBSCRIBE", .punsubscribe),
        ]
        return Dictionary(uniqueKeysWithValues: names.map { (Array($0.0.utf8), $0.1) })
    }()

    func execute(_ words: [[UInt8]], on connection: Connection) {
        guard let name = words.first else { return }
        truth.begin()
        executing = connection
        let command = Self.commands[name]
        let wasClient = command == .client
        let before = connection.out.count
        connection.skips = connection.skipsNext
        connection.skipsNext = false
        if let command {
            dispatch(command, words, on: connection)
        } else {
            connection.out.append(text: "-ERR unknown command\r\n")
            if connection.queued != nil { connection.isQueueBroken = true }
        }
        if connection.isUnanswered { connection.out.replaceSubrange(before..., with: connection.unmuted) }
        connection.unmuted = []
        serveBlocked()
        executing = nil
        /* Behind the reply: what the command changed itself. */
        if !connection.pendingKeys.isEmpty {
            for key in connection.pendingKeys { push(key, to: connection) }
            connection.pendingKeys.removeAll()
        }
        if !wasClient, connection.queued == nil { connection.mayCache = false }
        limitTable()
    }

    func dispatch(_ command: Command, _ words: [[UInt8]], on connection: Connection) {
        if !connection.isAuthenticated, command != .hello, command != .auth, command != .reset, command != .quit {
            connection.out.append(text: "-NOAUTH Authentication required.\r\n")
            return
        }
        if isLoading, command != .hello, command != .auth, command != .client, command != .info, command != .quit {
            connection.out.append(text: "-LOADING Redis is loading the dataset in memory\r\n")
            return
        }
        if cannotSave, command.isRefusedUnsaved {
            connection.out.append(text: "-MISCONF Redis is configured to save RDB snapshots, but cannot\r\n")
            if connection.queued != nil { connection.isQueueBroken = true }
            return
        }
        if connection.queued != nil, command != .exec, command != .discard, command != .watch, command != .multi,
            command != .reset, command != .quit
        {
            connection.queued?.append(words)
            connection.out.append(text: "+QUEUED\r\n")
            return
        }
        carryOut(command, words, on: connection)
    }

    /// What a word says beyond its bytes: "v12", "#12": token 12 has been carried out.
    static func token(_ word: [UInt8]) -> Int? {
        guard let first = word.first, first == UInt8(ascii: "v") || first == UInt8(ascii: "#") else { return nil }
        var number = 0
        var at = 1
        while at < word.count, word[at] >= 48, word[at] <= 57 {
            number = number * 10 + Int(word[at] - 48)
            at += 1
        }
        return at == 1 ? nil : number
    }

    func carryOut(_ command: Command, _ words: [[UInt8]], on connection: Connection) {
        for word in words.dropFirst() { if let token = Self.token(word) { truth.execute(token: token) } }
        if command.isChangeWithoutToken { truth.note(change: words, connection: connection.id) }
        switch command {
        case .hello, .auth, .ping, .client, .info, .command, .select, .reset, .quit, .dbSize, .scan, .xpending:
            converse(command, words, connection)
        case .multi, .exec, .discard, .watch, .unwatch, .eval, .evalRO, .publish, .subscribe, .unsubscribe,
            .psubscribe, .punsubscribe:
            transact(command, words, connection)
        case .lpush, .rpush, .lpop, .llen, .blpop, .hset, .hget, .sort, .sortRO:
            collect(command, words, connection)
        default:
            string(command, words, connection)
        }
    }

    // MARK: replies

    func ok(_ connection: Connection) { connection.out.append(text: "+OK\r\n") }
    func integer(_ connection: Connection, _ number: Int) { connection.out.appendHead(":", number) }
    func null(_ connection: Connection) {
        if connection.protocolVersion == 3 {
            connection.out.append(text: "_\r\n")
        } else {
            connection.out.append(text: "$-1\r\n")
        }
    }
    func nullArray(_ connection: Connection) {
        if connection.protocolVersion == 3 {
            connection.out.append(text: "_\r\n")
        } else {
            connection.out.append(text: "*-1\r\n")
        }
    }
    func wrongType(_ connection: Connection) {
        connection.out.append(
            text: "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n")
    }
}
