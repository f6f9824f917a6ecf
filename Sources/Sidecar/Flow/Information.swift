/// Information — INFO: the upstream's own, with a section about us behind it; without an upstream, ours alone.

/// Where the numbers of our section lie among the engine's.
struct InformationOffsets {
    struct Row {
        var name: StaticString
        var offset: Int
    }

    let clients, clientsOpened, memoryUsed, memoryMax: Int?
    let sidecar: [Row]

    init(_ orders: some Orders) {
        clients = orders.metricOffset("ferrite_connections_active", "")
        clientsOpened = orders.metricOffset("ferrite_connections_opened_total", "")
        memoryUsed = orders.metricOffset("ferrite_memory_used_bytes", "")
        memoryMax = orders.metricOffset("ferrite_memory_max_bytes", "")
        let rows: [(StaticString, String, String)] = [
            ("hits", "ferrite_keyspace_hits_total", ""),
            ("misses", "ferrite_keyspace_misses_total", ""),
            ("keys", "ferrite_keys", "database=\"0\""),
            ("fills", "ferrite_sidecar_fills_total", ""),
            ("invalidations", "ferrite_sidecar_invalidations_total", ""),
            ("evicted_keys", "ferrite_evicted_keys_total", ""),
            ("expired_keys", "ferrite_expired_keys_total", ""),
            ("local_memory_used", "ferrite_memory_used_bytes", ""),
            ("local_memory_max", "ferrite_memory_max_bytes", ""),
            ("write_behind_queued", "ferrite_sidecar_write_behind_queued", ""),
            ("audits_same", "ferrite_sidecar_audit_total", "result=\"same\""),
            ("audits_stale", "ferrite_sidecar_audit_total", "result=\"stale\""),
            ("clients", "ferrite_connections_active", ""),
            ("clients_pinned", "ferrite_sidecar_connections_pinned", ""),
        ]
        sidecar = rows.compactMap { row in orders.metricOffset(row.1, row.2).map { Row(name: row.0, offset: $0) } }
    }
}

extension Flow {
    /// INFO has come. While the link is silent nobody need wait for the upstream's part.
    mutating func ask(_ event: Event) {
        let sections = InformationSections(event.bytes)
        var entry = OwedReply(ticket: event.ticket, sentNs: nowNs, awaited: .information, flags: [])
        entry.inform(sections, protocolVersion: event.protocolVersion)
        if sections.areSidecarOnly { return answerText(entry, Array(sidecarSection.utf8), isVerbatim: true) }
        guard tracked.isUp, !tracked.heartbeat.isSilent else { return answerOwnInformation(entry) }
        orders.send(tracked.link, event.bytes)
        owe(entry)
    }

    /// The upstream's part has come; or an error, or QUEUED in a transaction, which stay as they are.
    func heardInformation(_ asked: OwedReply, _ bytes: Bytes, fence: FenceID = 0) {
        let reply = Reply(bytes)
        guard reply.type == UInt8(ascii: "$") || reply.type == UInt8(ascii: "="), let text = reply.text else {
            return orders.answer(asked.ticket, bytes, fromRESP3: false, fence: fence)
        }
        var whole = Array(text)
        if asked.flags.contains(.everything) {
            if !whole.isEmpty { whole += Array("\r\n".utf8) }
            whole += Array(sidecarSection.utf8)
        }
        answerText(asked, whole, isVerbatim: reply.type == UInt8(ascii: "="), fence: fence)
    }

    /// What we can say without the upstream.
    func answerOwnInformation(_ asked: OwedReply) {
        let values = orders.stats()
        func value(_ offset: Int?) -> UInt64 {
            guard let offset, values.indices.contains(offset) else { return 0 }
            return values[offset]
        }
        let version = tracked.serverVersion.isEmpty ? "7.0.0" : tracked.serverVersion
        let text = """
            # Server\r
            redis_version:\(version)\r
            redis_mode:standalone\r
            \r
            # Clients\r
            connected_clients:\(value(offsets.clients))\r
            blocked_clients:0\r
            \r
            # Memory\r
            used_memory:\(value(offsets.memoryUsed))\r
            maxmemory:\(value(offsets.memoryMax))\r
            \r
            # Stats\r
            total_connections_received:\(value(offsets.clientsOpened))\r
            total_commands_processed:\(orders.commandsAnswered)\r
            \r
            \(sidecarSection)
            """
        answerText(asked, Array(text.utf8), isVerbatim: true)
    }

    /* Verbatim strings are RESP3's; a RESP2 client gets a bulk string. */
    private func answerText(_ asked: OwedReply, _ text: [UInt8], isVerbatim: Bool, fence: FenceID = 0) {
        let head =
            isVerbatim && asked.flags.contains(.clientRESP3) ? "=\(text.count + 4)\r\ntxt:" : "$\(text.count)\r\n"
        let reply = Array(head.utf8) + text + Array("\r\n".utf8)
        reply.withUnsafeBufferPointer { orders.answer(asked.ticket, $0, fromRESP3: false, fence: fence) }
    }

    private var sidecarSection: String {
        let status = status
        let values = orders.stats()
        var text = """
            # Sidecar\r
            network_engine:\(policy.networkName)\r
            network_reason:\(policy.networkReason)\r
            mode:\(policy.mode)\r
            upstream:\(status.address)\r
            upstream_state:\(status.state.rawValue)\r
            upstream_links:\(status.links)\r
            upstream_reconnects:\(status.reconnects)\r
            upstream_last_error:\(status.lastError)\r
            upstream_round_trip_usec:\(status.roundTripNs / 1_000)\r
            tracking:\(status.tracking ? "on" : "off")\r
            tracking_reason:\(status.trackingReason)\r
            read_timeouts:\(status.timeouts)\r
            breaker:\(status.breakerIsOpen ? "open" : "closed")\r
            bypass:\(status.isBypassed ? "on" : "off")\r
            prefetch:\(status.prefetch.isOn ? status.prefetch.state.rawValue : "off")\r
            journal:\(journaling.state == .none ? "none" : status.journal.isOn ? "on" : "off")\r

            """
        for row in offsets.sidecar where values.indices.contains(row.offset) {
            text += "\(row.name):\(values[row.offset])\r\n"
        }
        return text
    }
}

extension OwedReply {
    /// Notes that it is INFO's, for a client that speaks this protocol.
    mutating func inform(_ sections: InformationSections, protocolVersion: UInt8) {
        awaited = .information
        if protocolVersion == 3 { flags.insert(.clientRESP3) }
        if sections.wantSidecar { flags.insert(.everything) }
    }
}

/// Which sections an INFO asks for.
struct InformationSections {
    private let names: [String]

    init(_ request: Bytes) { names = Request(request).arguments.dropFirst().map { $0.lowercased() } }

    /// Our section belongs to what is asked for.
    var wantSidecar: Bool {
        names.isEmpty || names.contains { ["sidecar", "all", "everything", "default"].contains($0) }
    }

    var areSidecarOnly: Bool { names == ["sidecar"] }
}
