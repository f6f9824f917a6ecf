"""mutants — the rules of coherence, each taken out by one change of the source.

A rule that can be taken out without a seed noticing is either not needed or not tested. `scripts/mutate` runs them.

Each: name, file, what stands there, what stands there without the rule.
"""

SLOTS = "Sources/CFastPath/serve/slots.c"
FLIGHT = "Sources/CFastPath/serve/flight.c"
READ = "Sources/CFastPath/serve/read.c"
DISPATCH = "Sources/CFastPath/serve/dispatch.c"
FLOW = "Sources/Sidecar/Flow/"
HEARTBEAT = "Sources/Sidecar/Upstream/Heartbeat.swift"

COMMANDS = "Sources/CFastPath/resp/commands"


def row_drops_nothing(name, word, keys, resp2):
    row = f'COMMAND("{word}", "", {keys}, 1, WRITE, {resp2}, '
    return f"own writes: {name} drops nothing", COMMANDS + ".def", row + "KEYS)", row + "NOTHING)"


MUTANTS = [
    ("fence: none", FLOW + "Fencing.swift",
     "guard policy.fence, tracked.tracking else { return 0 }",
     "guard policy.fence, tracked.tracking, nowNs == 0 else { return 0 }"),
    ("fence: passes as soon as it is sent", FLOW + "Fencing.swift",
     "        tracked.heartbeat.pinged(nowNs)\n",
     "        tracked.heartbeat.pinged(nowNs)\n"
     "        orders.passFence(tracked.heartbeat.sent)\n"),
    ("fence: scripts on the tracked link have none", FLOW + "Passthrough.swift",
     "if event.mayWriteUnknownKeys, fence() != 0 { flags = .fenced }",
     "_ = event.mayWriteUnknownKeys"),
    ("fence: trust comes back with the first PONG", HEARTBEAT,
     "if answered >= trustedAt { isLate = false }",
     "isLate = false"),
    ("fence: a silent link's fetches take who was told otherwise", FLOW + "Fencing.swift",
     "        if tracked.heartbeat.isSilent { orders.closeFlights() }\n",
     ""),
    ("own writes: not dropped when parsed", DISPATCH,
     "uint32_t dropped = store_drop(serve->store, key->bytes, key->length, hash);",
     "uint32_t dropped = 0;"),
    ("own writes: flights not closed when parsed", DISPATCH,
     "            flights_close(serve, hash);\n"
     "        }\n"
     "        slot->looks",
     "        }\n"
     "        slot->looks"),
    ("own writes: not dropped again before the reply", SLOTS,
     "static void drop_again(struct serve *serve, struct slot *slot) {\n",
     "static void drop_again(struct serve *serve, struct slot *slot) {\n"
     "    if (slot) return;\n"),
    ("own writes: flights not spoiled again by another link's write", SLOTS,
     "        flights_close(serve, hash_of(slot, i));\n",
     ""),
    ("own writes: EXEC does not drop what was queued", DISPATCH,
     "            fits = slot_note_hash(serve, slot, hash);\n"
     "        }\n"
     "    }\n",
     "            fits = hash || true;\n"
     "        }\n"
     "    }\n"),
    ("own writes: FLUSHALL drops nothing", DISPATCH,
     "    store_drop_all(serve->store);\n"
     "    flights_close_all(serve);\n"
     "    slot->drops_all",
     "    slot->drops_all"),
    *(row_drops_nothing(*row) for row in [
        ("RENAME", "rename", "RENAME, 3, RANGE, 1, 2", "SAME"), ("COPY", "copy", "COPY, -3, RANGE, 1, 2", "SAME"),
        ("MOVE", "move", "MOVE, 3, RANGE, 1, 1", "SAME"), ("PEXPIRE", "pexpire", "PEXPIRE, -3, RANGE, 1, 1", "SAME"),
        ("GETDEL", "getdel", "GETDEL, 2, RANGE, 1, 1", "NULL"), ("GETEX", "getex", "GETEX, -2, RANGE, 1, 1", "NULL")]),
    ("flights: a push does not spoil them", FLIGHT,
     "if (flight->hash == hash && flight->armed) flight->spoiled = true;",
     "if (0) flight->spoiled = true;"),
    ("epochs: a new link begins none", FLOW + "TrackedLink.swift",
     "epoch: trackedStatus.epoch, trusted",
     "epoch: 1, trusted"),
    ("flights: an answer that is not stored leaves the older", FLIGHT,
     "        store_drop(serve->store, flight->key, flight->key_length, flight->hash);\n"
     "        return false;",
     "        return false;"),
    ("flights: a closed one takes joiners", FLIGHT,
     "return flight->closed || flight->era != serve->flight_era ? NULL : flight;",
     "return flight;"),
    ("flights: CACHING and its read are parted", FLOW + "ReadThrough.swift",
     "            owe(OwedReply(ticket: event.ticket, sentNs: nowNs, awaited: .caching, flags: "
     "flags))\n"
     "            sendMember(event)\n",
     "            owe(OwedReply(ticket: 0, sentNs: nowNs, awaited: .nothing, flags: []))\n"
     "            orders.send(tracked.link, Wire.ping)\n"
     "            owe(OwedReply(ticket: 0, sentNs: nowNs, awaited: .nothing, flags: []))\n"
     "            owe(OwedReply(ticket: event.ticket, sentNs: nowNs, awaited: .expiry, flags: "
     "flags.union(.tracked)))\n"
     "            sendMember(event)\n"),
    ("flights: time to live counts from the answer", FLOW + "ReadThrough.swift",
     "        orders.arm(entry.pointee.ticket, ttlMs: ttl ?? -1, sentNs: entry.pointee.sentNs, keep: "
     "keep)",
     "        orders.arm(entry.pointee.ticket, ttlMs: ttl ?? -1, sentNs: nowNs, keep: keep)"),
    ("flights: misses overtake the writes between them", FLOW + "Flow.swift",
     "        while index < batch.count {\n"
     "            let event = batch[index]\n"
     "            switch event.kind {\n",
     "        while index < batch.count {\n"
     "            if batch[index].kind == .miss { fetch(batch, from: index, to: index &+ 1) }\n"
     "            index &+= 1\n"
     "        }\n"
     "        index = 0\n"
     "        while index < batch.count {\n"
     "            let event = batch[index]\n"
     "            if event.kind == .miss {\n"
     "                index &+= 1\n"
     "                continue\n"
     "            }\n"
     "            switch event.kind {\n"),
    ("one client's order: reads do not mind its writes", READ,
     "return session->filtered && (session->filter >> (hash & 63) & 1);",
     "return session->filtered && 0;"),
    ("one client's order: reads do not mind its flights", READ,
     "return unlikely(session->first) ? flight_find(serve, key) : NULL;",
     "return session->first && 0 ? flight_find(serve, key) : NULL;"),
    ("one client's order: SORT and scripts that only read are taken to name their keys", COMMANDS + ".c",
     "    case COMMAND_ID_FCALL_RO: return false;",
     "    case COMMAND_ID_FCALL_RO: return true;"),
    ("one client's order: MGET leaves no mark", READ,
     "        session->filter |= 1ull << (flight->hash & 63);\n",
     ""),
    ("one client's order: MGET's reply does not stand before later reads", READ,
     "    slot->filtered = true;\n"
     "    session->filtered++;\n"
     "    serve->stats.commands_miss++;\n"
     "    serve->stats.keyspace_misses += count;\n"
     "    announce_group",
     "    struct store_key first_key = key_of(serve, &serve->args.args[1]);\n"
     "    struct store_value first_value;\n"
     "    if (count > 1 && lookup(serve, &first_key, &first_value)) leader->era--;\n"
     "    serve->stats.commands_miss++;\n"
     "    serve->stats.keyspace_misses += count;\n"
     "    announce_group"),
    ("epochs: suspension changes nothing", FLOW + "TrackedLink.swift",
     "        let trusted = tracked.isUp && !tracked.heartbeat.isLate\n",
     "        let trusted = tracked.isUp\n"),
    ("epochs: what is read past suspect copies leaves them", DISPATCH,
     "if (!writes && !elsewhere && serve->trusted && !serve->has_others) continue;",
     "if (!writes) continue;"),
    ("epochs: a pause is not noticed", "Sources/CFastPath/engine.c",
     "engine->trusted && serve->now_ns <= engine->trusted_until_ns",
     "engine->trusted"),
    ("epochs: what SORT has read leaves suspect copies", SLOTS,
     "    if (serve->trusted) serve->suspect_from = serve->epoch;\n"
     "    else store_drop_all(serve->store);\n",
     "    serve->suspect_from = 0;\n"),
    ("two times: ttl_default is not looked at", READ,
     "if (unlikely(serve->now_ms >= value->fresh_until)) {",
     "if (0) {"),
    ("two times: ttl_default counts from the answer", FLIGHT,
     "flight->started_ns / NS_PER_MS + serve->ttl_default_ms",
     "serve->now_ms + serve->ttl_default_ms"),
    ("WATCH: reads are served from the store", DISPATCH,
     "is_get && session->lane != FP_LANE_PINNED && length",
     "is_get && length"),
    ("fate: a write of unknown fate is called failed", FLOW + "ReadThrough.swift",
     "                orders.closeSlot(entry.ticket)\n",
     "                orders.answer(entry.ticket, error, fromRESP3: false, fence: 0)\n"),
    ("fate: pinned clients outlive their link", FLOW + "Pinning.swift",
     "        if case .ready = session.pointee.phase {\n"
     "            orders.closeClient(client)\n",
     "        if case .ready = session.pointee.phase {\n"
     "            _ = client\n"),
]
