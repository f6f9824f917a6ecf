/// Transactions — what is carried out as one: MULTI, scripts; and messages.
extension UpstreamModel {
    func transact(_ command: Command, _ words: [[UInt8]], _ connection: Connection) {
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
                if connection.watched.contains(where: { $0.database == connection.database && $0.key == key }) {
                    continue
                }
                connection.watched.append((connection.database, key, isOver(connection.database, key)))
            }
            ok(connection)
        case .unwatch:
            unwatch(connection)
            ok(connection)
        case .eval, .evalRO:
            eval(words, connection)
        case .publish:
            publish(words, connection)
        default:
            subscribe(command, words, connection)
        }
    }

    func unwatch(_ connection: Connection) {
        connection.watched = []
        connection.isDirty = false
    }

    func exec(_ connection: Connection) {
        guard let queued = connection.queued else {
            return connection.out.append(text: "-ERR EXEC without MULTI\r\n")
        }
        connection.queued = nil
        /* A watched key that has expired meanwhile counts as changed. */
        for watch in connection.watched where !watch.wasOver && isOver(watch.database, watch.key) {
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
    static let declaredScript = "return redis.call('SET', KEYS[1], ARGV[1])".array

    func eval(_ words: [[UInt8]], _ connection: Connection) {
        let numberOfKeys = Int(String(decoding: words[2], as: UTF8.self)) ?? 0
        let arguments = Array(words.dropFirst(3 + numberOfKeys))
        if words[1] == Self.setScript {
            put(connection, arguments[0], .string(arguments[1]))
            ok(connection)
        } else if words[1] == Self.declaredScript {
            put(connection, words[3], .string(arguments[0]))
            ok(connection)
        } else if words[1] == Self.getScript {
            read(arguments[0], connection)
            /* What a script reads is registered by the keys that it declares. */
            registerRead(words[3..<3 + numberOfKeys], by: connection)
        } else {
            connection.out.append(text: "-ERR Error compiling script\r\n")
        }
    }

    func publish(_ words: [[UInt8]], _ connection: Connection) {
        var receivers = 0
        for other in connections where other.channels.contains(words[1]) {
            receivers += 1
            deliver(to: other) { out in
                out.appendHead(other.protocolVersion == 3 ? ">" : "*", 3)
                out.appendBulk("message".array)
                out.appendBulk(words[1])
                out.appendBulk(words[2])
            }
        }
        for other in connections {
            for pattern in other.patterns where words[1].starts(with: pattern.dropLast()) {
                receivers += 1
                deliver(to: other) { out in
                    out.appendHead(other.protocolVersion == 3 ? ">" : "*", 4)
                    out.appendBulk("pmessage".array)
                    out.appendBulk(pattern)
                    out.appendBulk(words[1])
                    out.appendBulk(words[2])
                }
            }
        }
        integer(connection, receivers)
    }

    private func deliver(to connection: Connection, _ write: (inout [UInt8]) -> Void) {
        if connection === executing, connection.isUnanswered {
            write(&connection.unmuted)
        } else {
            write(&connection.out)
        }
    }

    func subscribe(_ command: Command, _ words: [[UInt8]], _ connection: Connection) {
        let isSubscribing = command == .subscribe || command == .psubscribe
        let isOfPatterns = command == .psubscribe || command == .punsubscribe
        let own = isOfPatterns ? connection.patterns : connection.channels
        let names = words.count > 1 ? Array(words.dropFirst()) : own.sorted { $0.lexicographicallyPrecedes($1) }
        func confirm(_ name: [UInt8]?) {
            deliver(to: connection) { out in
                out.appendHead(connection.protocolVersion == 3 ? ">" : "*", 3)
                let kind = isSubscribing ? "subscribe" : "unsubscribe"
                out.appendBulk(isOfPatterns ? ("p" + kind).array : kind.array)
                if let name {
                    out.appendBulk(name)
                } else {
                    out.append(text: connection.protocolVersion == 3 ? "_\r\n" : "$-1\r\n")
                }
                out.appendHead(":", connection.channels.count + connection.patterns.count)
            }
        }
        for name in names {
            switch command {
            case .subscribe: connection.channels.insert(name)
            case .psubscribe: connection.patterns.insert(name)
            case .unsubscribe: connection.channels.remove(name)
            default: connection.patterns.remove(name)
            }
            confirm(name)
        }
        if names.isEmpty { confirm(nil) }
    }
}
