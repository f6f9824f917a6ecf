/// Strings — strings and keys of every type.
extension UpstreamModel {
    func string(_ command: Command, _ words: [[UInt8]], _ connection: Connection) {
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
        case .getRange:
            if let stored = look(connection, words[1]) {
                guard case .string(let bytes) = stored.content else { return wrongType(connection) }
                connection.out.appendBulk(bytes)
            } else {
                connection.out.appendBulk([])
            }
            registerRead([words[1]], by: connection)
        case .append:
            append(words, connection)
        case .setRange:
            setRange(words, connection)
        case .incr:
            increment(words, connection)
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
    func read(_ key: [UInt8], _ connection: Connection) -> Bool {
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

    func expiry(_ words: [[UInt8]], from: Int) -> UInt64? {
        var at = from
        while at < words.count {
            if words[at] == "PX".array, at + 1 < words.count { return milliseconds(words[at + 1]) }
            at += 1
        }
        return nil
    }

    func milliseconds(_ word: [UInt8]) -> UInt64 {
        let now = nowNs / millisecond
        return (now + (UInt64(String(decoding: word, as: UTF8.self)) ?? 1)) * millisecond
    }

    func set(_ command: Command, _ words: [[UInt8]], _ connection: Connection) {
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

    func append(_ words: [[UInt8]], _ connection: Connection) {
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

    /// SETRANGE key 0 value: any other offset is taken for 0.
    func setRange(_ words: [[UInt8]], _ connection: Connection) {
        let stored = look(connection, words[1])
        var bytes: [UInt8] = []
        if let stored {
            guard case .string(let old) = stored.content else { return wrongType(connection) }
            bytes = old
        }
        bytes = words[3] + bytes.dropFirst(words[3].count)
        put(connection, words[1], .string(bytes), expiresNs: stored?.expiresNs ?? .max)
        integer(connection, bytes.count)
    }

    func increment(_ words: [[UInt8]], _ connection: Connection) {
        let stored = look(connection, words[1])
        var number = 0
        if let stored {
            guard case .string(let old) = stored.content else { return wrongType(connection) }
            guard let held = Int(String(decoding: old, as: UTF8.self)) else {
                return connection.out.append(text: "-ERR value is not an integer or out of range\r\n")
            }
            number = held
        }
        let bytes = [UInt8](decimal: number + 1)
        put(connection, words[1], .string(bytes), expiresNs: stored?.expiresNs ?? .max)
        integer(connection, number + 1)
    }

    func keyspace(_ command: Command, _ words: [[UInt8]], _ connection: Connection) {
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
            for other in connections { swapWatched(other) }
            wakeBlocked()
            for key in 0..<keyCount { record([UInt8]("k", key)) }
            ok(connection)
        default:
            connection.out.append(text: "-ERR unknown command\r\n")
        }
    }

    /// touchAllWatchedKeysInDb, behind the swap.
    func swapWatched(_ connection: Connection) {
        for index in connection.watched.indices {
            let watch = connection.watched[index]
            let isThere = databases[watch.database][watch.key] != nil
            let wasThere = databases[1 - watch.database][watch.key] != nil
            if !isThere, !wasThere { continue }
            if watch.wasOver {
                if !isThere {
                    connection.watched[index].wasOver = false
                    continue
                }
                if isOver(watch.database, watch.key) { continue }
            } else if !wasThere, isOver(watch.database, watch.key) {
                connection.watched[index].wasOver = true
                continue
            }
            connection.isDirty = true
        }
    }

    func transfer(_ command: Command, _ words: [[UInt8]], _ connection: Connection) {
        if command == .copy, words[1] == words[2] {
            return connection.out.append(text: "-ERR source and destination objects are the same\r\n")
        }
        if command == .move, (words[2] == "1".array ? 1 : 0) == connection.database {
            return connection.out.append(text: "-ERR source and destination objects are the same\r\n")
        }
        guard let stored = look(connection, words[1]) else {
            if command == .rename { return connection.out.append(text: "-ERR no such key\r\n") }
            return integer(connection, 0)
        }
        switch command {
        case .rename:
            if words[1] == words[2] { return ok(connection) }
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

    func flush(_ which: [Int]) {
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
}
