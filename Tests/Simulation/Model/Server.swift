/// Server — commands of the connection and of the server as a whole.
extension UpstreamModel {
    func converse(_ command: Command, _ words: [[UInt8]], _ connection: Connection) {
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
            connection.isMute = false
            connection.channels = []
            connection.patterns = []
            connection.protocolVersion = 2
            connection.tracking = .off
            connection.database = 0
            connection.isAuthenticated = password == nil
            connection.out.append(text: "+RESET\r\n")
        case .quit:
            ok(connection)
            quitters.append(connection)
            close(connection)
        case .dbSize:
            integer(connection, databases[connection.database].count)
        case .scan:
            scan(words, connection)
        default:
            connection.out.append(text: "-NOGROUP No such key or consumer group\r\n")
        }
    }

    /// SCAN cursor [MATCH prefix*] COUNT n TYPE string: three names at a time, whatever is asked for, and some of them twice.
    private func scan(_ words: [[UInt8]], _ connection: Connection) {
        let prefix = words[2] == "MATCH".array ? words[3].dropLast() : []
        let names = databases[connection.database].keys.filter { $0.starts(with: prefix) }
            .sorted { $0.lexicographicallyPrecedes($1) }
        let from = min(Int(String(decoding: words[1], as: UTF8.self)) ?? 0, names.count)
        let page = names[from...].prefix(3)
        connection.out.appendHead("*", 2)
        connection.out.appendBulk(from + 3 < names.count ? [UInt8](decimal: from + 2) : "0".array)
        let strings = page.filter { if case .string? = look(connection, $0)?.content { true } else { false } }
        connection.out.appendHead("*", strings.count)
        for name in strings { connection.out.appendBulk(name) }
    }

    func hello(_ words: [[UInt8]], _ connection: Connection) {
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

    func client(_ words: [[UInt8]], _ connection: Connection) {
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
        case "REPLY":
            switch String(decoding: words[2], as: UTF8.self) {
            case "ON":
                connection.isMute = false
                connection.skips = false
                ok(connection)
            case "OFF": connection.isMute = true
            default: connection.skipsNext = !connection.isMute
            }
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

    func track(_ words: [[UInt8]], _ connection: Connection) {
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
}
