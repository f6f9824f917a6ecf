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
        fileprivate var mayCache = false
        fileprivate var isAuthenticated: Bool
        fileprivate var queued: [[[UInt8]]]?
        fileprivate var isQueueBroken = false
        fileprivate var watched: [(database: Int, key: [UInt8])] = []
        fileprivate var isDirty = false
        fileprivate var blocked: (keys: [[UInt8]], deadlineNs: UInt64)?
        fileprivate var channels: Set<[UInt8]> = []
        fileprivate var pendingKeys: [[UInt8]?] = []
        fileprivate var input = CommandReader()
        fileprivate(set) var isClosed = false

        fileprivate init(id: Int, isAuthenticated: Bool) {
            self.id = id
            self.isAuthenticated = isAuthenticated
        }
    }

    // MARK: what it is like

    var runID = 1
    var speaksTracking = true
    var refusesTracking = false
    var isLoading = false
    var password: [UInt8]?
    var tableMax = Int.max

    var nowNs: UInt64 = second
    var truth: Truth
    private(set) var databases: [[[UInt8]: Stored]] = [[:], [:]]
    /// In the order in which they came.
    private(set) var connections: [Connection] = []
    private var nextID = 1
    private var table: [[UInt8]: [Int]] = [:]
    private var tableOrder: [[UInt8]] = []
    private var broadcast: [[UInt8]] = []
    private var executing: Connection?
    private var ready: [[UInt8]] = []
    private let keyCount: Int
    /// Of how many kinds its pushes were; for coverage.
    private(set) var pushes = 0

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

    private func run(_ connection: Connection) {
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
            nullArray(connection)
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
        fileprivate var databases: [[[UInt8]: Stored]]
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

    private static func keyNumber(_ key: [UInt8]) -> Int? {
        guard key.first == UInt8(ascii: "k"), key.count > 1 else { return nil }
        var number = 0
        for byte in key.dropFirst() {
            guard byte >= 48, byte <= 57 else { return nil }
            number = number * 10 + Int(byte - 48)
        }
        return number
    }

    private func record(_ key: [UInt8]) {
        guard let number = Self.keyNumber(key), number < keyCount else { return }
        let stored = databases[0][key]
        var value: UInt64 = 0
        if let stored {
            if case .string(let bytes) = stored.content { value = Truth.hash(bytes) } else { value = 2 }
        }
        truth.record(key: number, value: value, nowNs: nowNs, expiresNs: stored?.expiresNs ?? .max)
    }

    private func expireIfNeeded(_ database: Int, _ key: [UInt8]) -> Bool {
        guard let stored = databases[database][key], stored.expiresNs <= nowNs else { return false }
        databases[database][key] = nil
        changed(database, key)
        return true
    }

    private func look(_ connection: Connection, _ key: [UInt8]) -> Stored? {
        _ = expireIfNeeded(connection.database, key)
        return databases[connection.database][key]
    }

    private func put(_ connection: Connection, _ key: [UInt8], _ content: Content, expiresNs: UInt64 = .max) {
        databases[connection.database][key] = Stored(content: content, expiresNs: expiresNs)
        changed(connection.database, key)
    }

    private func remove(_ connection: Connection, _ key: [UInt8]) -> Bool {
        guard look(connection, key) != nil else { return false }
        databases[connection.database][key] = nil
        changed(connection.database, key)
        return true
    }

    /* signalModifiedKey */
    private func changed(_ database: Int, _ key: [UInt8]) {
        if database == 0 { record(key) }
        for connection in connections where !connection.watched.isEmpty {
            if connection.watched.contains(where: { $0.database == database && $0.key == key }) {
                connection.isDirty = true
            }
        }
        announce(key)
    }

    // MARK: tracking

    private func register(_ key: [UInt8], for connection: Connection) {
        if table[key] == nil { tableOrder.append(key) }
        if table[key, default: []].contains(connection.id) { return }
        table[key, default: []].append(connection.id)
    }

    private func registerRead(_ keys: some Sequence<[UInt8]>, by connection: Connection) {
        switch connection.tracking {
        case .everything: break
        case .optIn: if !connection.mayCache { return }
        case .off, .broadcast: return
        }
        for key in keys { register(key, for: connection) }
    }

    private func push(_ key: [UInt8]?, to connection: Connection) {
        guard !connection.isClosed, connection.protocolVersion == 3 else { return }
        pushes += 1
        connection.out.append(text: ">2\r\n$10\r\ninvalidate\r\n")
        if let key {
            connection.out.append(text: "*1\r\n")
            connection.out.appendBulk(key)
        } else {
            connection.out.append(text: "_\r\n")
        }
    }

    private func tell(_ key: [UInt8]?, to connection: Connection) {
        if connection === executing { connection.pendingKeys.append(key) } else { push(key, to: connection) }
    }

    private func announce(_ key: [UInt8]) {
        if connections.contains(where: { if case .broadcast = $0.tracking { true } else { false } }) {
            if !broadcast.contains(key) { broadcast.append(key) }
        }
        guard let trackers = table.removeValue(forKey: key) else { return }
        tableOrder.removeAll { $0 == key }
        for id in trackers {
            guard let connection = connections.first(where: { $0.id == id }), connection.tracking != .off else {
                continue
            }
            if case .broadcast = connection.tracking { continue }
            tell(key, to: connection)
        }
    }

    /* Broadcasts are gathered, and sent when the server has nothing else to do: each key once, sorted. */
    private func sendBroadcasts() {
        guard !broadcast.isEmpty else { return }
        let keys = broadcast.sorted { $0.lexicographicallyPrecedes($1) }
        broadcast = []
        for connection in connections {
            guard case .broadcast(let prefixes) = connection.tracking, connection.protocolVersion == 3 else { continue }
            let wanted = prefixes.isEmpty ? keys : keys.filter { key in prefixes.contains { key.starts(with: $0) } }
            if wanted.isEmpty { continue }
            pushes += 1
            connection.out.append(text: ">2\r\n$10\r\ninvalidate\r\n")
            connection.out.appendHead("*", wanted.count)
            for key in wanted { connection.out.appendBulk(key) }
        }
    }

    private func announceAll() {
        for connection in connections where connection.tracking != .off { tell(nil, to: connection) }
        table.removeAll()
        tableOrder.removeAll()
    }

    /// A full table forgets keys, with a push; Redis does it beside its commands.
    func limitTable() {
        while table.count > tableMax, let key = tableOrder.first { announce(key) }
    }

    // MARK: commands

    enum Command {
        case hello, auth, ping, client, info, command, select, reset
        case get, set, setEX, mget, mset, del, exists, pttl, pexpire, persist, append, getDel, getEX, rename, copy, move
        case type, strlen, flushAll, flushDB, swapDB, dbSize, getSet
        case lpush, rpush, lpop, llen, blpop, hset, hget, xpending
        case multi, exec, discard, watch, unwatch, eval, publish, subscribe, unsubscribe
    }

    private static let commands: [[UInt8]: Command] = {
        let names: [(String, Command)] = [
            ("HELLO", .hello), ("AUTH", .auth), ("PING", .ping), ("CLIENT", .client), ("INFO", .info),
            ("COMMAND", .command), ("SELECT", .select), ("RESET", .reset), ("GET", .get), ("SET", .set),
            ("PSETEX", .setEX), ("MGET", .mget), ("MSET", .mset), ("DEL", .del), ("EXISTS", .exists), ("PTTL", .pttl),
            ("PEXPIRE", .pexpire), ("PERSIST", .persist), ("APPEND", .append), ("GETDEL", .getDel), ("GETEX", .getEX),
            ("RENAME", .rename), ("COPY", .copy), ("MOVE", .move), ("TYPE", .type), ("STRLEN", .strlen),
            ("FLUSHALL", .flushAll), ("FLUSHDB", .flushDB), ("SWAPDB", .swapDB), ("DBSIZE", .dbSize),
            ("GETSET", .getSet), ("LPUSH", .lpush), ("RPUSH", .rpush), ("LPOP", .lpop), ("LLEN", .llen),
            ("BLPOP", .blpop), ("HSET", .hset), ("HGET", .hget), ("XPENDING", .xpending), ("MULTI", .multi),
            ("EXEC", .exec), ("DISCARD", .discard), ("WATCH", .watch), ("UNWATCH", .unwatch), ("EVAL", .eval),
            ("PUBLISH", .publish), ("SUBSCRIBE", .subscribe), ("UNSUBSCRIBE", .unsubscribe),
        ]
        return Dictionary(uniqueKeysWithValues: names.map { (Array($0.0.utf8), $0.1) })
    }()

    private func execute(_ words: [[UInt8]], on connection: Connection) {
        guard let name = words.first else { return }
        truth.begin()
        executing = connection
        let command = Self.commands[name]
        let wasClient = command == .client
        if let command {
            dispatch(command, words, on: connection)
        } else {
            connection.out.append(text: "-ERR unknown command\r\n")
            if connection.queued != nil { connection.isQueueBroken = true }
        }
        serveBlocked()
        executing = nil
        /* Behind the reply: what the command changed itself. */
        if !connection.pendingKeys.isEmpty {
            for key in connection.pendingKeys { push(key, to: connection) }
            connection.pendingKeys.removeAll()
        }
        if !wasClient { connection.mayCache = false }
        limitTable()
    }

    private func dispatch(_ command: Command, _ words: [[UInt8]], on connection: Connection) {
        if !connection.isAuthenticated, command != .hello, command != .auth, command != .reset {
            connection.out.append(text: "-NOAUTH Authentication required.\r\n")
            return
        }
        if isLoading, command != .hello, command != .auth, command != .client, command != .info {
            connection.out.append(text: "-LOADING Redis is loading the dataset in memory\r\n")
            return
        }
        if connection.queued != nil, command != .exec, command != .discard, command != .watch, command != .multi,
            command != .reset
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

    private func carryOut(_ command: Command, _ words: [[UInt8]], on connection: Connection) {
        for word in words.dropFirst() { if let token = Self.token(word) { truth.execute(token: token) } }
        switch command {
        case .hello, .auth, .ping, .client, .info, .command, .select, .reset, .dbSize, .xpending:
            converse(command, words, connection)
        case .multi, .exec, .discard, .watch, .unwatch, .eval, .publish, .subscribe, .unsubscribe:
            transact(command, words, connection)
        case .lpush, .rpush, .lpop, .llen, .blpop, .hset, .hget:
            collect(command, words, connection)
        default:
            string(command, words, connection)
        }
    }

    // MARK: replies

    private func ok(_ connection: Connection) { connection.out.append(text: "+OK\r\n") }
    private func integer(_ connection: Connection, _ number: Int) { connection.out.appendHead(":", number) }
    private func null(_ connection: Connection) {
        if connection.protocolVersion == 3 {
            connection.out.append(text: "_\r\n")
        } else {
            connection.out.append(text: "$-1\r\n")
        }
    }
    private func nullArray(_ connection: Connection) {
        if connection.protocolVersion == 3 {
            connection.out.append(text: "_\r\n")
        } else {
            connection.out.append(text: "*-1\r\n")
        }
    }
    private func wrongType(_ connection: Connection) {
        connection.out.append(
            text: "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n")
    }

    // MARK: connection and server

    private func converse(_ command: Command, _ words: [[UInt8]], _ connection: Connection) {
        switch command {
        case .ping:
            if words.count > 1 { connection.out.appendBulk(words[1]) } else { connection.out.append(text: "+PONG\r\n") }
        case .hello:
            hello(words, connection)
        case .auth:
            if let password, words.last == password {
                connection.isAuthenticated = true
                ok(connection)
            } else if password == nil {
                connection.out.append(text: "-ERR AUTH <password> called without any password configured\r\n")
            } else {
                connection.out.append(text: "-WRONGPASS invalid username-password pair or user is disabled.\r\n")
            }
        case .client:
            client(words, connection)
        case .info:
            var text = [UInt8]("# Server\r\nredis_version:7.0.15\r\nrun_id:".utf8)
            text.append(decimal: runID)
            text.append(text: "\r\n")
            connection.out.appendBulk(text)
        case .command:
            connection.out.append(text: "*0\r\n")
        case .select:
            guard words.count == 2, let index = Int(String(decoding: words[1], as: UTF8.self)), index < 2, index >= 0
            else {
                connection.out.append(text: "-ERR DB index is out of range\r\n")
                return
            }
            connection.database = index
            ok(connection)
        case .reset:
            connection.queued = nil
            connection.watched = []
            connection.isDirty = false
            connection.channels = []
            connection.protocolVersion = 2
            connection.tracking = .off
            connection.database = 0
            connection.isAuthenticated = password == nil
            connection.out.append(text: "+RESET\r\n")
        case .dbSize:
            integer(connection, databases[connection.database].count)
        default:
            connection.out.append(text: "-NOGROUP No such key or consumer group\r\n")
        }
    }

    private func hello(_ words: [[UInt8]], _ connection: Connection) {
        var at = 2
        while at < words.count {
            if words[at] == "AUTH".array, at + 2 < words.count {
                if let password, words[at + 2] != password {
                    connection.out.append(text: "-WRONGPASS invalid username-password pair or user is disabled.\r\n")
                    return
                }
                connection.isAuthenticated = true
                at += 3
            } else {
                at += 2
            }
        }
        if !connection.isAuthenticated {
            connection.out.append(
                text:
                    "-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time\r\n"
            )
            return
        }
        if words.count > 1 {
            let version = words[1] == [51] ? 3 : 2
            if version == 2 { connection.tracking = connection.protocolVersion == 3 ? .off : connection.tracking }
            connection.protocolVersion = version
        }
        connection.out.appendHead(connection.protocolVersion == 3 ? "%" : "*", connection.protocolVersion == 3 ? 5 : 10)
        for (name, value) in [("server", "redis"), ("version", "7.0.15"), ("mode", "standalone"), ("role", "master")] {
            connection.out.appendBulk(Array(name.utf8))
            connection.out.appendBulk(Array(value.utf8))
        }
        connection.out.appendBulk(Array("proto".utf8))
        integer(connection, connection.protocolVersion)
    }

    private func client(_ words: [[UInt8]], _ connection: Connection) {
        guard words.count > 1 else { return connection.out.append(text: "-ERR wrong number of arguments\r\n") }
        switch String(decoding: words[1], as: UTF8.self) {
        case "CACHING":
            guard speaksTracking else { return ok(connection) }
            guard connection.tracking == .optIn else {
                connection.out.append(
                    text: connection.tracking == .off
                        ? "-ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled\r\n"
                        : "-ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.\r\n"
                )
                return
            }
            connection.mayCache = true
            ok(connection)
        case "TRACKING":
            guard speaksTracking else {
                return connection.out.append(text: "-ERR Unknown CLIENT subcommand\r\n")
            }
            guard !refusesTracking else {
                return connection.out.append(
                    text: "-NOPERM this user has no permissions to run the 'client|tracking' command\r\n")
            }
            track(words, connection)
        default:
            ok(connection)
        }
    }

    private func track(_ words: [[UInt8]], _ connection: Connection) {
        if words[2] == "OFF".array {
            connection.tracking = .off
        } else if words.contains("OPTIN".array) {
            connection.tracking = .optIn
        } else if words.contains("BCAST".array) {
            var prefixes: [[UInt8]] = []
            for index in words.indices where words[index] == "PREFIX".array && index + 1 < words.count {
                prefixes.append(words[index + 1])
            }
            connection.tracking = .broadcast(prefixes)
        } else {
            connection.tracking = .everything
        }
        ok(connection)
    }

    // MARK: strings and keys

    private func string(_ command: Command, _ words: [[UInt8]], _ connection: Connection) {
        switch command {
        case .get:
            read(words[1], connection)
            registerRead([words[1]], by: connection)
        case .mget:
            connection.out.appendHead("*", words.count - 1)
            for key in words.dropFirst() {
                if let stored = look(connection, key), case .string(let bytes) = stored.content {
                    connection.out.appendBulk(bytes)
                } else {
                    null(connection)
                }
            }
            registerRead(words.dropFirst(), by: connection)
        case .set, .setEX:
            set(command, words, connection)
        case .mset:
            var at = 1
            while at + 1 < words.count {
                put(connection, words[at], .string(words[at + 1]))
                at += 2
            }
            ok(connection)
        case .getSet, .getDel:
            guard read(words[1], connection) else { return }
            if command == .getSet {
                put(connection, words[1], .string(words[2]))
            } else {
                _ = remove(connection, words[1])
            }
        case .append:
            append(words, connection)
        case .getEX:
            guard read(words[1], connection), let stored = databases[connection.database][words[1]] else { return }
            if let expires = expiry(words, from: 2) {
                databases[connection.database][words[1]] = Stored(content: stored.content, expiresNs: expires)
                changed(connection.database, words[1])
            }
        case .del:
            var count = 0
            for key in words.dropFirst() where remove(connection, key) { count += 1 }
            integer(connection, count)
        case .exists:
            var count = 0
            for key in words.dropFirst() where look(connection, key) != nil { count += 1 }
            integer(connection, count)
            registerRead(words.dropFirst(), by: connection)
        default:
            keyspace(command, words, connection)
        }
    }

    @discardableResult
    private func read(_ key: [UInt8], _ connection: Connection) -> Bool {
        guard let stored = look(connection, key) else {
            null(connection)
            return true
        }
        guard case .string(let bytes) = stored.content else {
            wrongType(connection)
            return false
        }
        connection.out.appendBulk(bytes)
        return true
    }

    private func expiry(_ words: [[UInt8]], from: Int) -> UInt64? {
        var at = from
        while at < words.count {
            if words[at] == "PX".array, at + 1 < words.count { return milliseconds(words[at + 1]) }
            at += 1
        }
        return nil
    }

    private func milliseconds(_ word: [UInt8]) -> UInt64 {
        let now = nowNs / millisecond
        return (now + (UInt64(String(decoding: word, as: UTF8.self)) ?? 1)) * millisecond
    }

    private func set(_ command: Command, _ words: [[UInt8]], _ connection: Connection) {
        let key = words[1]
        if command == .setEX {
            put(connection, key, .string(words[3]), expiresNs: milliseconds(words[2]))
            return ok(connection)
        }
        if words.contains("NX".array), look(connection, key) != nil { return null(connection) }
        let asksForOld = words.count > 3 && words.last == "GET".array
        if asksForOld, !read(key, connection) { return }
        put(connection, key, .string(words[2]), expiresNs: expiry(words, from: 3) ?? .max)
        if !asksForOld { ok(connection) }
    }

    private func append(_ words: [[UInt8]], _ connection: Connection) {
        let stored = look(connection, words[1])
        var bytes: [UInt8] = []
        if let stored {
            guard case .string(let old) = stored.content else { return wrongType(connection) }
            bytes = old
        }
        bytes += words[2]
        put(connection, words[1], .string(bytes), expiresNs: stored?.expiresNs ?? .max)
        integer(connection, bytes.count)
    }

    private func keyspace(_ command: Command, _ words: [[UInt8]], _ connection: Connection) {
        switch command {
        case .pttl:
            if let stored = look(connection, words[1]) {
                let left =
                    stored.expiresNs == .max ? -1 : Int(stored.expiresNs / millisecond) - Int(nowNs / millisecond)
                integer(connection, left)
            } else {
                integer(connection, -2)
            }
            registerRead([words[1]], by: connection)
        case .type, .strlen:
            let stored = look(connection, words[1])
            if command == .strlen {
                if let stored, case .string(let bytes) = stored.content {
                    integer(connection, bytes.count)
                } else if stored == nil {
                    integer(connection, 0)
                } else {
                    wrongType(connection)
                }
            } else {
                switch stored?.content {
                case .string: connection.out.append(text: "+string\r\n")
                case .list: connection.out.append(text: "+list\r\n")
                case .hash: connection.out.append(text: "+hash\r\n")
                case nil: connection.out.append(text: "+none\r\n")
                }
            }
            registerRead([words[1]], by: connection)
        case .pexpire, .persist:
            guard let stored = look(connection, words[1]) else { return integer(connection, 0) }
            if command == .persist, stored.expiresNs == .max { return integer(connection, 0) }
            let expires = command == .persist ? UInt64.max : milliseconds(words[2])
            databases[connection.database][words[1]] = Stored(content: stored.content, expiresNs: expires)
            changed(connection.database, words[1])
            integer(connection, 1)
        case .rename, .copy, .move:
            transfer(command, words, connection)
        case .flushAll, .flushDB:
            flush(command == .flushAll ? [0, 1] : [connection.database])
            ok(connection)
        case .swapDB:
            databases.swapAt(0, 1)
            for other in connections where !other.watched.isEmpty { other.isDirty = true }
            for key in 0..<keyCount { record([UInt8]("k", key)) }
            ok(connection)
        default:
            connection.out.append(text: "-ERR unknown command\r\n")
        }
    }

    private func transfer(_ command: Command, _ words: [[UInt8]], _ connection: Connection) {
        if command == .copy, words[1] == words[2] {
            return connection.out.append(text: "-ERR source and destination objects are the same\r\n")
        }
        guard let stored = look(connection, words[1]) else {
            if command == .rename { return connection.out.append(text: "-ERR no such key\r\n") }
            return integer(connection, 0)
        }
        switch command {
        case .rename:
            databases[connection.database][words[1]] = nil
            databases[connection.database][words[2]] = stored
            changed(connection.database, words[1])
            changed(connection.database, words[2])
            ok(connection)
        case .copy:
            if (look(connection, words[2]) != nil && words.last != "REPLACE".array) {
                return integer(connection, 0)
            }
            databases[connection.database][words[2]] = stored
            changed(connection.database, words[2])
            integer(connection, 1)
        default:
            let other = 1 - connection.database
            _ = expireIfNeeded(other, words[1])
            if databases[other][words[1]] != nil { return integer(connection, 0) }
            databases[other][words[1]] = stored
            databases[connection.database][words[1]] = nil
            changed(connection.database, words[1])
            changed(other, words[1])
            integer(connection, 1)
        }
    }

    private func flush(_ which: [Int]) {
        for database in which {
            for other in connections {
                if other.watched.contains(where: { $0.database == database && databases[database][$0.key] != nil }) {
                    other.isDirty = true
                }
            }
            databases[database].removeAll()
        }
        for key in 0..<keyCount { record([UInt8]("k", key)) }
        announceAll()
    }

    // MARK: lists and hashes

    private func collect(_ command: Command, _ words: [[UInt8]], _ connection: Connection) {
        let stored = look(connection, words[1])
        switch command {
        case .lpush, .rpush:
            var items: [[UInt8]] = []
            if let stored {
                guard case .list(let old) = stored.content else { return wrongType(connection) }
                items = old
            }
            if command == .lpush {
                items.insert(contentsOf: words.dropFirst(2).reversed(), at: 0)
            } else {
                items += words.dropFirst(2)
            }
            put(connection, words[1], .list(items), expiresNs: stored?.expiresNs ?? .max)
            integer(connection, items.count)
            if connection.database == 0 { ready.append(words[1]) }
        case .lpop:
            guard let stored else { return null(connection) }
            guard case .list(let items) = stored.content else { return wrongType(connection) }
            connection.out.appendBulk(items[0])
            pop(connection.database, words[1], items)
        case .llen:
            if let stored {
                guard case .list(let items) = stored.content else { return wrongType(connection) }
                integer(connection, items.count)
            } else {
                integer(connection, 0)
            }
            registerRead([words[1]], by: connection)
        case .blpop:
            block(words, connection)
        case .hset:
            var fields: [[UInt8]: [UInt8]] = [:]
            if let stored {
                guard case .hash(let old) = stored.content else { return wrongType(connection) }
                fields = old
            }
            integer(connection, fields[words[2]] == nil ? 1 : 0)
            fields[words[2]] = words[3]
            put(connection, words[1], .hash(fields), expiresNs: stored?.expiresNs ?? .max)
        default:
            if let stored {
                guard case .hash(let fields) = stored.content else { return wrongType(connection) }
                if let value = fields[words[2]] { connection.out.appendBulk(value) } else { null(connection) }
            } else {
                null(connection)
            }
            registerRead([words[1]], by: connection)
        }
    }

    private func pop(_ database: Int, _ key: [UInt8], _ items: [[UInt8]]) {
        let rest = Array(items.dropFirst())
        let expires = databases[database][key]?.expiresNs ?? .max
        databases[database][key] = rest.isEmpty ? nil : Stored(content: .list(rest), expiresNs: expires)
        changed(database, key)
    }

    private func block(_ words: [[UInt8]], _ connection: Connection) {
        let keys = Array(words[1..<words.count - 1])
        for key in keys {
            guard let stored = look(connection, key) else { continue }
            guard case .list(let items) = stored.content else { return wrongType(connection) }
            connection.out.appendHead("*", 2)
            connection.out.appendBulk(key)
            connection.out.appendBulk(items[0])
            return pop(connection.database, key, items)
        }
        if isInExec { return nullArray(connection) }
        let seconds = Double(String(decoding: words[words.count - 1], as: UTF8.self)) ?? 0
        connection.blocked = (keys, seconds == 0 ? .max : nowNs + UInt64(seconds * 1e9))
    }

    private func serveBlocked() {
        while let key = ready.first {
            ready.removeFirst()
            for connection in connections {
                guard let blocked = connection.blocked, blocked.keys.contains(key), connection.database == 0,
                    let stored = databases[0][key], case .list(let items) = stored.content
                else { continue }
                connection.blocked = nil
                connection.out.appendHead("*", 2)
                connection.out.appendBulk(key)
                connection.out.appendBulk(items[0])
                pop(0, key, items)
                unblocked.append(connection)
            }
        }
    }

    private var unblocked: [Connection] = []

    /* Clients that were blocked go on with what they have sent meanwhile. */
    private func goOn() {
        while let connection = unblocked.popLast() { run(connection) }
        sendBroadcasts()
    }

    // MARK: transactions, scripts, messages

    private var isInExec = false

    private func transact(_ command: Command, _ words: [[UInt8]], _ connection: Connection) {
        switch command {
        case .multi:
            if connection.queued != nil {
                return connection.out.append(text: "-ERR MULTI calls can not be nested\r\n")
            }
            connection.queued = []
            connection.isQueueBroken = false
            ok(connection)
        case .discard:
            guard connection.queued != nil else { return connection.out.append(text: "-ERR DISCARD without MULTI\r\n") }
            connection.queued = nil
            unwatch(connection)
            ok(connection)
        case .exec:
            exec(connection)
        case .watch:
            if connection.queued != nil {
                return connection.out.append(text: "-ERR WATCH inside MULTI is not allowed\r\n")
            }
            for key in words.dropFirst() {
                _ = expireIfNeeded(connection.database, key)
                connection.watched.append((connection.database, key))
            }
            ok(connection)
        case .unwatch:
            unwatch(connection)
            ok(connection)
        case .eval:
            eval(words, connection)
        case .publish:
            publish(words, connection)
        default:
            subscribe(command, words, connection)
        }
    }

    private func unwatch(_ connection: Connection) {
        connection.watched = []
        connection.isDirty = false
    }

    private func exec(_ connection: Connection) {
        guard let queued = connection.queued else {
            return connection.out.append(text: "-ERR EXEC without MULTI\r\n")
        }
        connection.queued = nil
        /* A watched key that has expired meanwhile counts as changed. */
        for watch in connection.watched where databases[watch.database][watch.key]?.expiresNs ?? .max <= nowNs {
            connection.isDirty = true
        }
        let isDirty = connection.isDirty
        unwatch(connection)
        if connection.isQueueBroken {
            return connection.out.append(
                text: "-EXECABORT Transaction discarded because of previous errors.\r\n")
        }
        if isDirty { return nullArray(connection) }
        connection.out.appendHead("*", queued.count)
        isInExec = true
        for words in queued {
            if let command = Self.commands[words[0]] { carryOut(command, words, on: connection) }
        }
        isInExec = false
    }

    /// The scripts it understands, word for word.
    static let setScript = "return redis.call('SET', ARGV[1], ARGV[2])".array
    static let getScript = "return redis.call('GET', ARGV[1])".array

    private func eval(_ words: [[UInt8]], _ connection: Connection) {
        let numberOfKeys = Int(String(decoding: words[2], as: UTF8.self)) ?? 0
        let arguments = Array(words.dropFirst(3 + numberOfKeys))
        if words[1] == Self.setScript {
            put(connection, arguments[0], .string(arguments[1]))
            ok(connection)
        } else if words[1] == Self.getScript {
            read(arguments[0], connection)
            registerRead([arguments[0]], by: connection)
        } else {
            connection.out.append(text: "-ERR Error compiling script\r\n")
        }
    }

    private func publish(_ words: [[UInt8]], _ connection: Connection) {
        var receivers = 0
        for other in connections where other.channels.contains(words[1]) {
            receivers += 1
            other.out.appendHead(other.protocolVersion == 3 ? ">" : "*", 3)
            other.out.appendBulk("message".array)
            other.out.appendBulk(words[1])
            other.out.appendBulk(words[2])
        }
        integer(connection, receivers)
    }

    private func subscribe(_ command: Command, _ words: [[UInt8]], _ connection: Connection) {
        let isSubscribing = command == .subscribe
        let names =
            words.count > 1 ? Array(words.dropFirst()) : connection.channels.sorted { $0.lexicographicallyPrecedes($1) }
        func confirm(_ name: [UInt8]?) {
            connection.out.appendHead(connection.protocolVersion == 3 ? ">" : "*", 3)
            connection.out.appendBulk(isSubscribing ? "subscribe".array : "unsubscribe".array)
            if let name { connection.out.appendBulk(name) } else { null(connection) }
            integer(connection, connection.channels.count)
        }
        for name in names {
            if isSubscribing { connection.channels.insert(name) } else { connection.channels.remove(name) }
            confirm(name)
        }
        if names.isEmpty { confirm(nil) }
    }
}
