/// Tracking — CLIENT TRACKING: who is told of which change, and in which place of the stream.
extension UpstreamModel {
    func register(_ key: [UInt8], for connection: Connection) {
        if table[key] == nil { tableOrder.append(key) }
        if table[key, default: []].contains(connection.id) { return }
        table[key, default: []].append(connection.id)
    }

    func registerRead(_ keys: some Sequence<[UInt8]>, by connection: Connection) {
        switch connection.tracking {
        case .everything: break
        case .optIn: if !connection.mayCache { return }
        case .off, .broadcast: return
        }
        for key in keys { register(key, for: connection) }
    }

    func push(_ key: [UInt8]?, to connection: Connection) {
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

    func tell(_ key: [UInt8]?, to connection: Connection) {
        if connection === executing { connection.pendingKeys.append(key) } else { push(key, to: connection) }
    }

    func announce(_ key: [UInt8]) {
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
    func sendBroadcasts() {
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

    func announceAll() {
        for connection in connections where connection.tracking != .off { tell(nil, to: connection) }
        table.removeAll()
        tableOrder.removeAll()
    }

    /// A full table forgets keys, with a push; Redis does it beside its commands.
    func limitTable() {
        while table.count > tableMax, let key = tableOrder.first { announce(key) }
    }
}
