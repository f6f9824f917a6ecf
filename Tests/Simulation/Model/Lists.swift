/// Lists — lists with blocking pop, and a hash.
extension UpstreamModel {
    func collect(_ command: Command, _ words: [[UInt8]], _ connection: Connection) {
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
            ready.append((connection.database, words[1]))
        case .lpop:
            guard let stored else { return null(connection) }
            guard case .list(let items) = stored.content else { return wrongType(connection) }
            connection.out.appendBulk(items[0])
            pop(connection.database, words[1], items)
            changed(connection.database, words[1])
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
        case .sort, .sortRO:
            sort(command, stored, words, connection)
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

    /// SORT list BY nosort GET *: the values of the keys that the list names, none of which it registers.
    func sort(_ command: Command, _ stored: Stored?, _ words: [[UInt8]], _ connection: Connection) {
        var names: [[UInt8]] = []
        if let stored {
            guard case .list(let items) = stored.content else { return wrongType(connection) }
            names = items
        }
        connection.out.appendHead("*", names.count)
        for name in names {
            if let stored = look(connection, name), case .string(let bytes) = stored.content {
                connection.out.appendBulk(bytes)
            } else {
                null(connection)
            }
        }
        if command == .sortRO { registerRead([words[1]], by: connection) }
    }

    func pop(_ database: Int, _ key: [UInt8], _ items: [[UInt8]]) {
        let rest = Array(items.dropFirst())
        let expires = databases[database][key]?.expiresNs ?? .max
        databases[database][key] = rest.isEmpty ? nil : Stored(content: .list(rest), expiresNs: expires)
    }

    func block(_ words: [[UInt8]], _ connection: Connection) {
        let keys = Array(words[1..<words.count - 1])
        for key in keys {
            guard let stored = look(connection, key) else { continue }
            guard case .list(let items) = stored.content else { return wrongType(connection) }
            connection.out.appendHead("*", 2)
            connection.out.appendBulk(key)
            connection.out.appendBulk(items[0])
            pop(connection.database, key, items)
            return changed(connection.database, key)
        }
        if isInExec { return nullArray(connection) }
        let seconds = Double(String(decoding: words[words.count - 1], as: UTF8.self)) ?? 0
        blockings += 1
        connection.blocked = (keys, seconds == 0 ? .max : nowNs + UInt64(seconds * 1e9), blockings)
    }

    func serveBlocked() {
        while !ready.isEmpty {
            let (database, key) = ready.removeFirst()
            let waiting = connections.filter { $0.database == database && $0.blocked?.keys.contains(key) ?? false }
            for connection in waiting.sorted(by: { ($0.blocked?.place ?? 0) < ($1.blocked?.place ?? 0) }) {
                guard let stored = databases[database][key], case .list(let items) = stored.content else { break }
                connection.blocked = nil
                if !connection.isUnanswered {
                    connection.out.appendHead("*", 2)
                    connection.out.appendBulk(key)
                    connection.out.appendBulk(items[0])
                }
                /* Announced with what was pushed. */
                pop(database, key, items)
                unblocked.append(connection)
            }
        }
    }

    /// After SWAPDB: what clients wait for may be there now.
    func wakeBlocked() {
        let keys = Set(connections.flatMap { $0.blocked?.keys ?? [] }).sorted { $0.lexicographicallyPrecedes($1) }
        for database in 0..<2 { for key in keys { ready.append((database, key)) } }
    }

    /* Clients that were blocked go on with what they have sent meanwhile. */
    func goOn() {
        while !unblocked.isEmpty { run(unblocked.removeFirst()) }
        sendBroadcasts()
    }
}
