"""mutants — the rules of coherence, each taken out by one change of the source.

A rule that can be taken out without a seed noticing is either not needed or not tested. `scripts/mutate` runs them.

Each: name, and once or more: file, what stands there, what stands there without the rule.
"""

SLOTS = "Sources/CFastPath/serve/slots.c"
FLIGHT = "Sources/CFastPath/serve/flight.c"
READ = "Sources/CFastPath/serve/read.c"
LOOKUP = "Sources/CFastPath/serve/lookup.c"
DISPATCH = "Sources/CFastPath/serve/dispatch.c"
ENGINE = "Sources/CFastPath/engine.c"
ORDERS = "Sources/CFastPath/orders.c"
COMMANDS = "Sources/CFastPath/resp/"
FLOW = "Sources/Sidecar/Flow/"
JOURNAL = "Sources/Sidecar/Journal/"
WRITE = "Sources/CFastPath/serve/write.c"
BEHIND = "Sources/CFastPath/serve/behind.c"
HEARTBEAT = "Sources/Sidecar/Upstream/Heartbeat.swift"

TRUST = "engine->trusted && serve->now_ns <= engine->trusted_until_ns;"

MUTANTS = [
    ("fence: none", FLOW + "Fencing.swift",
     "        return tracked.heartbeat.fence()\n",
     "        return 0\n"),
    ("fence: passes as soon as it is sent", FLOW + "Fencing.swift",
     "        tracked.heartbeat.pinged(nowNs)\n",
     "        tracked.heartbeat.pinged(nowNs)\n"
     "        orders.passFence(tracked.heartbeat.sent)\n"),
    ("fence: scripts on the tracked link have none", FLOW + "Passthrough.swift",
     "if event.mayWriteUnknownKeys, policy.tracking.isBroadcast ? policy.fence : fence() != 0 { flags = .fenced }",
     "_ = event.mayWriteUnknownKeys"),
    ("fence: a link is given back before what came by it is delivered", "Sources/CFastPath/serve/session.h",
     "    if (!session->gives_back || session->first) return;\n",
     "    if (!session->gives_back) return;\n"),
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
     "        if ((elsewhere",
     "        }\n"
     "        if ((elsewhere"),
    ("own writes: not dropped again before the reply", SLOTS,
     "static void drop_again(struct serve *serve, struct slot *slot) {\n",
     "static void drop_again(struct serve *serve, struct slot *slot) {\n"
     "    if (slot) return;\n"),
    ("own writes: flights not spoiled again by another link's write", SLOTS,
     "        flights_close(serve, hash_of(slot, i));\n",
     ""),
    ("own writes: EXEC does not drop what was queued", DISPATCH,
     "        fits = note_all(serve, slot, &session->multi_written);\n",
     "        fits = true;\n"),
    ("own writes: EXEC does not drop what was looked at", DISPATCH,
     "        fits = fits && note_all(serve, slot, &session->multi_looked);\n", ""),
    ("own writes: FLUSHALL drops nothing", DISPATCH,
     "    store_drop_all(serve->store);\n"
     "    flights_close_all(serve);\n"
     "    if (slot->lane",
     "    if (slot->lane"),
    ("own writes: RENAME drops only the old name", COMMANDS + "commands.def",
     "RENAME, 3, RANGE, 1, 2, 1, WRITE", "RENAME, 3, RANGE, 1, 1, 1, WRITE"),
    ("own writes: COPY drops nothing", COMMANDS + "commands.def",
     "COPY, -3, RANGE, 1, 2, 1, WRITE, SAME, KEYS", "COPY, -3, RANGE, 1, 2, 1, WRITE, SAME, NOTHING"),
    ("own writes: MOVE drops nothing", COMMANDS + "commands.def",
     " MOVE, 3, RANGE, 1, 1, 1, WRITE, SAME, KEYS", " MOVE, 3, RANGE, 1, 1, 1, WRITE, SAME, NOTHING"),
    ("own writes: PEXPIRE drops nothing", COMMANDS + "commands.def",
     " PEXPIRE, -3, RANGE, 1, 1, 1, WRITE, SAME, KEYS", " PEXPIRE, -3, RANGE, 1, 1, 1, WRITE, SAME, NOTHING"),
    ("own writes: PERSIST drops nothing", COMMANDS + "commands.def",
     " PERSIST, 2, RANGE, 1, 1, 1, WRITE, SAME, KEYS", " PERSIST, 2, RANGE, 1, 1, 1, WRITE, SAME, NOTHING"),
    ("own writes: GETDEL drops nothing", COMMANDS + "commands.def",
     " GETDEL, 2, RANGE, 1, 1, 1, WRITE, NULL, KEYS", " GETDEL, 2, RANGE, 1, 1, 1, WRITE, NULL, NOTHING"),
    ("own writes: GETEX drops nothing", COMMANDS + "commands.def",
     " GETEX, -2, RANGE, 1, 1, 1, WRITE, NULL, KEYS", " GETEX, -2, RANGE, 1, 1, 1, WRITE, NULL, NOTHING"),
    ("databases: SWAPDB drops nothing", COMMANDS + "commands.def",
     "SWAPDB, 3, NONE, 0, 0, 0, WRITE, SAME, ALL", "SWAPDB, 3, NONE, 0, 0, 0, WRITE, SAME, NOTHING"),
    ("databases: what is fetched while SWAPDB is under way elsewhere is kept", FLIGHT, " || serve->sweeps;", ";"),
    ("own writes: EXEC does not drop everything again", DISPATCH,
     "        if (session->multi_all) slot_sweep(serve, slot, !session->multi_sweeps);\n", ""),
    ("databases: an announced FLUSHALL drops nothing", FLOW + "ReadThrough.swift",
     "            /* Null: everything. What cannot be read is taken for that too. */\n"
     "            orders.dropAll()\n",
     ""),
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
    ("flights: an old one takes joiners", FLIGHT,
     "return takes && is_young ?", "(void)is_young;\n        return takes ?"),
    ("flights: a closed one takes joiners", FLIGHT,
     "bool takes = !flight->closed && ", "bool takes = "),
    ("flights: CACHING and its read are parted", FLOW + "ReadThrough.swift",
     "        owe(OwedReply(ticket: event.ticket, sentNs: nowNs, awaited: .caching, flags: flags))\n"
     "        sendMember(event)\n",
     "        owe(OwedReply(ticket: 0, sentNs: nowNs, awaited: .nothing, flags: []))\n"
     "        orders.send(tracked.link, Wire.ping)\n"
     "        owe(OwedReply(ticket: 0, sentNs: nowNs, awaited: .nothing, flags: []))\n"
     "        owe(OwedReply(ticket: event.ticket, sentNs: nowNs, awaited: .expiry, flags: "
     "flags.union(.tracked)))\n"
     "        sendMember(event)\n"),
    ("flights: time to live counts from the answer", FLOW + "ReadThrough.swift",
     "        orders.arm(entry.pointee.ticket, ttlMs: ttl ?? -1, sentNs: entry.pointee.sentNs, keep: "
     "keep)",
     "        orders.arm(entry.pointee.ticket, ttlMs: ttl ?? -1, sentNs: nowNs, keep: keep)"),
    ("two times: the upstream's expiry ends no copy", FLIGHT,
     "flight->expire_at_ms = pttl_ms < 0 ? STORE_NEVER : sent_ns / NS_PER_MS + (uint64_t)pttl_ms;",
     "flight->expire_at_ms = sent_ns ? STORE_NEVER : 0;"),
    ("two times: ttl_default counts from the answer", FLIGHT,
     "fresh_until(flight), serve->epoch",
     "fresh_until(flight) * 0 + serve->now_ms + flight->rule->ttl_ms, serve->epoch"),
    ("two times: ttl_default ends no copy", LOOKUP,
     "return likely(serve->now_ms < value->fresh_until);",
     "return serve->now_ms || value->fresh_until;"),
    ("two times: a stale copy is served for ever", LOOKUP,
     "return serve->now_ms - value->fresh_until < rule->stale_ms;",
     "return rule->stale_ms > 0;"),
    ("two times: a suspect copy stands in for an answer", LOOKUP,
     "           (is_vouched_for(serve, value) || is_all_there_is(serve, value)) &&\n", ""),
    ("one client's order: a copy stands in for an answer behind its own commands", FLIGHT,
     "!flight->behind && lookup_stale(", "lookup_stale("),
    ("own writes: what is fetched behind a write is sent before it", DISPATCH,
     "    send_event(serve, session, slot, kind, command, raw, length);\n"
     "    if (lane == FP_LANE_TRACKED && command && leaves_strings(command)) fetch_behind(serve, command);\n",
     "    if (lane == FP_LANE_TRACKED && command && leaves_strings(command)) fetch_behind(serve, command);\n"
     "    send_event(serve, session, slot, kind, command, raw, length);\n"),
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
     "return session->first && 0 ? flight_find(serve, key) : NULL;",
     READ,
     "return unlikely(session->first) && flight_is_under_way(serve, key) && !flight_find(serve, key);",
     "return 0;"),
    ("one client's order: reads do not mind its flights that take nobody", READ,
     "return unlikely(session->first) && flight_is_under_way(serve, key) && !flight_find(serve, key);",
     "return 0;"),
    ("one client's order: SORT and scripts that only read do not stand before reads", COMMANDS + "commands.c",
     "case COMMAND_ID_FCALL_RO: return false;",
     "case COMMAND_ID_FCALL_RO: return true;"),
    ("one client's order: MGET leaves no mark", READ,
     "        session->filter |= 1ull << (flight->hash & 63);\n",
     ""),
    ("one client's order: MGET does not count as unanswered", READ,
     "    slot->filtered = true;\n"
     "    session->filtered++;\n",
     ""),
    # The first of two keys is answered at once, the other when it has been fetched. Half an array is no place for an
    # error: then the client's connection is closed.
    ("one instant: MGET takes from the store what is there", READ,
     "    struct flight *leader = start_group(serve, session, count);\n",
     "    struct store_key first = key_of(serve, &serve->args.args[1]);\n"
     "    if (count == 2 && !is_filtered(session, first.hash) && !flight_ahead(serve, session, &first) &&\n"
     "        lookup(serve, &first, &values[0])) {\n"
     "        bool fits = reply_aggregate(slot_sink(session), &serve->blocks, '*', 2) &&\n"
     "                    value_append(serve, slot_sink(session), &values[0], session->protocol);\n"
     "        serve->args.args[1] = serve->args.args[2];\n"
     "        return fits ? read_get(serve, session, command) : short_of_memory(serve, session);\n"
     "    }\n"
     "    struct flight *leader = start_group(serve, session, count);\n",
     FLIGHT,
     "        if (null) slot_answer_null(serve, slot);\n",
     "        bool half = slot->command == COMMAND_ID_MGET && flight->role == FLIGHT_SINGLE;\n"
     "        if (half && length && reply[0] == '-') session_close(serve, slot->session);\n"
     "        else if (null) slot_answer_null(serve, slot);\n"),
    ("epochs: suspension changes nothing", FLOW + "TrackedLink.swift",
     "        let trusted = tracked.isUp && !tracked.heartbeat.isLate\n",
     "        let trusted = tracked.isUp\n",
     ENGINE, TRUST, "engine->trusted;"),
    ("epochs: a pause is not noticed", ENGINE, TRUST, "engine->trusted;"),
    ("epochs: the fetches of a link that falls silent take who has waited", FLOW + "Fencing.swift",
     "        orders.closeFlights()\n        orders.passFence(.max)\n", "        orders.passFence(.max)\n"),
    ("epochs: a write of unknown fate leaves the copy from before it", ORDERS,
     "        drop_unresolved(engine);\n", "        (void)drop_unresolved;\n"),
    ("epochs: being turned away proves it though another link lives", FLOW + "TrackedLink.swift",
     "case .turnedAway: !hasOtherLink\n", "case .turnedAway: true\n"),
    ("own writes: what CLIENT REPLY leaves unanswered is not dropped again", SLOTS,
     "        trace_note(serve->trace, write.hash, FP_TRACE_ANSWERED, store_drop_hash(serve->store, write.hash));\n"
     "        flights_close(serve, write.hash);\n", ""),
    ("fence: what was looked at is not dropped again behind it", SLOTS,
     "        leave_fence(serve, slot);\n"
     "        drop_looked_at(serve, slot);\n"
     "        if (slot->looks_around) forget_suspects(serve);\n",
     "        leave_fence(serve, slot);\n"),
    ("epochs: a probe that nobody answers proves it though something was heard", FLOW + "TrackedLink.swift",
     "        guard tracked.isUp, tracked.heartbeat.isSilent, !cannotCount,\n"
     "            nowNs &- reach.lastHeardNs >= Heartbeat.lateNs, isCertain(evidence), !reach.isUnreachable\n",
     "        guard tracked.isUp, tracked.heartbeat.isSilent, evidence == .silence, !reach.isUnreachable\n"),
    ("epochs: who refuses in words counts as gone", FLOW + "TrackedLink.swift",
     "            /* Who refuses us in words is there, and others may be writing. */\n"
     "            return heardFromUpstream()\n", ""),
    ("epochs: SORT forgets no suspect copies", SLOTS,
     "static void forget_suspects(struct serve *serve) {\n",
     "static void forget_suspects(struct serve *serve) {\n"
     "    if (serve) return;\n"),
    ("epochs: what is read past suspect copies leaves them", DISPATCH,
     "if (!writes && !elsewhere && serve->trusted && !serve->has_others) continue;",
     "if (!writes) continue;"),
    ("WATCH: reads are served from the store", DISPATCH,
     '#include "serve/write.h"\n', '#include "serve/write.h"\n#include "serve/lookup.h"\n#include "serve/value.h"\n',
     DISPATCH,
     "        return read_get(serve, session, command);\n    bool arity_fits",
     "        return read_get(serve, session, command);\n"
     "    if (is_get && session->lane == FP_LANE_PINNED && !session->in_multi) {\n"
     "        const struct resp_arg *arg = &serve->args.args[1];\n"
     "        struct store_key key = {.bytes = arg->bytes, .length = arg->length};\n"
     "        key.hash = store_hash(serve->store, arg->bytes, arg->length);\n"
     "        struct store_value value;\n"
     "        if (lookup(serve, &key, &value) && !value.absent)\n"
     "            return value_append(serve, slot_sink(session), &value, 3) ? DISPATCH_DONE : DISPATCH_CLOSE;\n"
     "    }\n"
     "    bool arity_fits"),
    ("fate: a write of unknown fate is called failed", FLOW + "ReadThrough.swift",
     "                orders.closeSlot(entry.ticket)\n",
     "                orders.answer(entry.ticket, error, fromRESP3: false, fence: 0)\n"),
    ("fate: a client that is gone leaves its link", FLOW + "Pinning.swift",
     "        if pins.isEnding(link) { return }\n"
     "        orders.closeLink(link)\n"
     "        removePin(link)\n",
     "        if pins.isEnding(link) { return }\n"),
    ("fate: pinned clients outlive their link", FLOW + "Pinning.swift",
     "        } else if case .ready = session.pointee.phase {\n"
     "            orders.closeClient(client)\n",
     "        } else if case .ready = session.pointee.phase {\n"
     "            _ = client\n"),
    ("write-behind: reads do not look at what is written", READ,
     "    if (unlikely(written)) {\n        if (is_passed", "    if (0) {\n        if (is_passed"),
    ("write-behind: a read is answered in front of its client's command that was sent behind the write", READ,
     "    return unlikely(session->filtered) && written->place < session->passed_place &&",
     "    return 0 && written->place < session->passed_place &&"),
    ("write-behind: what touches a written key does not wait", WRITE,
     " || touches(serve, command);", " || (0 && touches(serve, command));"),
    ("write-behind: what a client writes or tells behind a write does not wait", WRITE,
     "return (tells && !behind_is_settled(&serve->behind, session->written_place)) ||", "(void)tells;\n    return"),
    ("write-behind: scripts and transactions do not wait", WRITE,
     "if (!is_message && !command_names_its_keys(command)) return true;", "(void)is_message;"),
    ("write-behind: a command takes over what the one before has waited for", DISPATCH,
     "if (unlikely(session->awaited_place) && done != DISPATCH_STALL) session->awaited_place = 0;", ""),
    ("write-behind: what was fetched before a write is sent is kept", ORDERS,
     "    flights_close(serve, written->hash);\n", ""),
    ("epochs: an MGET is refused though its keys were sent, in the moment before the proof", FLOW + "ReadThrough.swift",
     "!isClogged, !isBroken else", "!isClogged, !breaker.isOpen else"),
    ("write-behind: what was on a lost link is not sent again", BEHIND,
     "        from = requeue(behind, written->place > last ? from : &behind->queued_first, written);\n",
     "        (void)from, (void)requeue;\n        end(behind, written);\n"),
    ("write-behind: a refusal for now is taken for good", FLOW + "WriteBehind.swift",
     "            orders.writeBehindIs(.retried)\n", "            orders.writeBehindIs(.refused)\n"),
    ("write-behind: what is confirmed when its time is over stays", BEHIND,
     "if (is_over(written, now_ns)) return true;", "if (0) return true;"),
    ("write-behind: a ghost that was lost is not waited for", BEHIND,
     "        if (written->ghost) {\n            stick(behind, written);\n            continue;",
     "        if (written->ghost) {\n            end(behind, written);\n            continue;"),
    ("write-behind: what was retried is not found among what flies", BEHIND,
     "!(behind->disordered && flies_in_disorder(behind, place));", "!(0 && flies_in_disorder(behind, place));"),
    ("write-behind: what a given-up link still holds is sent", FLOW + "TrackedLink.swift",
     "        orders.abortLink(tracked.link)\n", "        orders.closeLink(tracked.link)\n"),
    ("journal: acknowledged before it is written", WRITE,
     "bool is_noted = behind->journal.state == JOURNAL_ON;", "bool is_noted = 0;"),
    ("journal: what waits for a write does not wait for the journal to say that it is done", BEHIND,
     "    journal_done(&behind->journal, written->place);\n",
     "    journal_done(&behind->journal, written->place);\n    if (1) {\n        end(behind, written);\n"
     "        return;\n    }\n"),
    ("journal: what is done is not noted", BEHIND,
     "    journal_done(&behind->journal, written->place);\n", ""),
    ("journal: of two writes of a key the first is restored as if it were not replaced", BEHIND,
     "    if (old) {\n        leave_queue(behind, old);", "    if (0) {\n        leave_queue(behind, old);"),
    ("journal: a file that cannot be written stays", JOURNAL + "JournalWork.swift",
     "            case .clear: try clear()\n", "            case .clear: break\n"),
    ("journal: who waits for it is answered when it cannot be written", ORDERS,
     "    behind_unnote(&engine->serve.behind);\n", "    journal_passed(&engine->serve, UINT64_MAX);\n"),
    ("journal: a torn frame is taken for whole", JOURNAL + "JournalReader.swift",
     "        guard found == crc else { return nil }\n", "        _ = found == crc\n"),
]
