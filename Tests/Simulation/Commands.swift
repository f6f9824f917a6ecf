/// Commands — what clients and writers elsewhere ask for.
extension World {
    // MARK: what they do

    func key() -> Int { chance.oneIn(2) ? 0 : chance.below(plan.keys) }

    func generate(_ client: SimClient, _ commands: inout [[[UInt8]]], _ kinds: inout [Asked.Kind]) {
        func add(_ words: [[UInt8]], _ kind: Asked.Kind) {
            commands.append(words)
            kinds.append(kind)
        }
        if plan.isBehind, client.habit != .subscriber, client.habit != .worker || chance.oneIn(2) {
            return addRegister(client, add)
        }
        switch client.habit {
        case .plain: addPlain(add)
        case .scripts: chance.oneIn(2) ? addScript(add) : addPlain(add)
        case .transactions: addTransaction(client, add)
        case .worker:
            if chance.oneIn(2), !plan.isBehind { return addPlain(add) }
            add(["BLPOP".array, "q0".array, "q1".array, chance.pick(["0.05".array, "0.3".array, "2".array])], .pop)
            client.isBlocked = true
        case .subscriber:
            if chance.oneIn(16) { return add(["RESET".array], .reset) }
            if chance.oneIn(3) {
                let isOfPattern = chance.oneIn(3)
                let kind = chance.oneIn(4) ? "UNSUBSCRIBE" : "SUBSCRIBE"
                let name = isOfPattern ? "c*".array : [UInt8]("c", chance.below(2))
                add([isOfPattern ? ("P" + kind).array : kind.array, name], .subscribe)
            }
        case .otherDatabase:
            cover("rule 8: commands in another database")
            if commands.isEmpty, client.asked.isEmpty { add(["SELECT".array, "1".array], .plain) }
            let number = key()
            let key = [UInt8]("k", number)
            let token = token()
            switch chance.below(4) {
            case 0: add(["SET".array, key, value(token)], .pass(token: token))
            case 1: add(["DEL".array, key, [UInt8]("#", token)], .pass(token: token))
            case 2: add(["MOVE".array, key, "0".array], .change([number], returns: nil))
            default: add(["GET".array, key], .plain)
            }
        }
    }

    func addPlain(_ add: ([[UInt8]], Asked.Kind) -> Void, mayRead: Bool = true) {
        let number = key()
        let key = [UInt8]("k", number)
        let token = token()
        if mayRead, plan.fillers > 0, chance.oneIn(4) {
            return add(["GET".array, [UInt8]("f", chance.below(plan.fillers))], .plain)
        }
        switch mayRead && chance.below(10) < plan.readsOfTen ? chance.below(13) : chance.below(31) {
        case 0...9:
            add(["GET".array, key], .read([number]))
        case 10...12:
            let keys = (0..<1 + chance.below(4)).map { _ in self.key() }
            add(["MGET".array] + keys.map { [UInt8]("k", $0) }, .read(keys))
        case 13...15:
            add(["SET".array, key, value(token)], .write([number], token: token))
        case 16:
            let ms = [UInt8](decimal: 1 + chance.below(400))
            add(["SET".array, key, value(token), "PX".array, ms], .write([number], token: token))
        case 17:
            let other = self.key()
            if other == number { return add(["GET".array, key], .read([number])) }
            let second = self.token()
            add(
                ["MSET".array, key, value(token), [UInt8]("k", other), value(second)],
                .write([number, other], token: token))
        case 18:
            add(["DEL".array, key, [UInt8]("#", token)], .write([number], token: token))
        case 19:
            add(["APPEND".array, key, value(token)], .write([number], token: token))
        case 20:
            add(["PEXPIRE".array, key, [UInt8](decimal: 1 + chance.below(300))], .change([number], returns: nil))
        case 21:
            let other = self.key()
            add(["RENAME".array, key, [UInt8]("k", other)], .change([number, other], returns: nil))
        case 22:
            let other = self.key()
            add(["COPY".array, key, [UInt8]("k", other), "REPLACE".array], .change([other], returns: nil))
        case 23:
            add(["HSET".array, "h".array, [UInt8]("#", token), "1".array], .pass(token: token))
        case 24:
            add(["HGET".array, "h".array, [UInt8]("#", token)], .pass(token: token))
        case 25:
            add(["ECHO".array, [UInt8]("e", token)], .exactly(.bulk([UInt8]("e", token))))
        case 26:
            add(["XPENDING".array, "x".array, [UInt8]("#", token)], .pass(token: token))
        case 27:
            add(["RPUSH".array, [UInt8]("q", chance.below(2)), value(token)], .pass(token: token))
        case 28:
            add(["PUBLISH".array, [UInt8]("c", chance.below(2)), [UInt8]("#", token)], .pass(token: token))
        case 29:
            addLookAround(add, mayRead: mayRead)
        default:
            switch chance.below(19) {
            case 0: add(["FLUSHALL".array], .change(Array(0..<plan.keys), returns: nil))
            case 1:
                /* Nothing announces it: another pod's, and one that is carried out behind the end of its link, are documented
                   limits. */
                if pods.count == 1, plan.forgetsNothing {
                    add(["SWAPDB".array, "0".array, "1".array], .change(Array(0..<plan.keys), returns: nil))
                }
            case 2: add(["MOVE".array, key, "1".array], .change([number], returns: nil))
            case 3: add(["GETDEL".array, key], .change([number], returns: number))
            case 4: add(["SET".array, key, value(token), "NX".array], .write([number], token: token))
            case 5: add(["SET".array, key, value(token), "GET".array], .write([number], token: token))
            case 6:
                add(
                    ["GETEX".array, key, "PX".array, [UInt8](decimal: 5 + chance.below(300))],
                    .change([number], returns: number))
            case 7: add(["PERSIST".array, key], .change([number], returns: nil))
            case 8: add(["EXISTS".array, key, [UInt8]("#", token)], .pass(token: token))
            case 9:
                add(
                    ["PSETEX".array, key, [UInt8](decimal: 1 + chance.below(300)), value(token)],
                    .write([number], token: token))
            case 10, 11: add(["GETRANGE".array, key, "0".array, "-1".array], .read([number]))
            case 12: add([chance.pick(["STRLEN".array, "TYPE".array]), key], .plain)
            case 13: add(["SETRANGE".array, key, "0".array, value(token)], .write([number], token: token))
            case 14: add(["INCR".array, key], .change([number], returns: nil))
            case 15: if mayRead { addMute(add) }
            case 16: if mayRead { add(["RESET".array], .reset) }
            case 17: if mayRead, chance.oneIn(3) { add(["QUIT".array], .exactly(.simple("OK".array))) }
            default: add(["PING".array], .exactly(.simple("PONG".array)))
            }
        }
    }

    /// Commands that are carried out and not answered.
    func addMute(_ add: ([[UInt8]], Asked.Kind) -> Void) {
        let key = [UInt8]("k", self.key())
        let isOne = chance.oneIn(2)
        add(["CLIENT", "REPLY", isOne ? "SKIP" : "OFF"].map(\.array), .unanswered)
        add(["SET".array, key, value(token())], .unanswered)
        if !isOne { add(["GET".array, key], .unanswered) }
        /* This one is answered in any case, by an error only when CLIENT REPLY is refused at all. */
        add(["CLIENT", "REPLY", "ON"].map(\.array), .exactly(.simple("OK".array)))
    }

    /// A read of keys that it does not name, and at once one that does: it must not be answered before.
    func addLookAround(_ add: ([[UInt8]], Asked.Kind) -> Void, mayRead: Bool) {
        guard mayRead else {
            add(["DEL".array, "names".array], .plain)
            return add(["RPUSH".array, "names".array] + (0..<plan.keys).map { [UInt8]("k", $0) }, .plain)
        }
        let command = chance.pick(["SORT".array, "SORT_RO".array])
        add([command, "names".array, "BY".array, "nosort".array, "GET".array, "*".array], .unnamedRead)
        let number = key()
        add(["GET".array, [UInt8]("k", number)], .read([number]))
    }

    func addScript(_ add: ([[UInt8]], Asked.Kind) -> Void) {
        let number = key()
        let key = [UInt8]("k", number)
        if chance.oneIn(4) {
            let token = token()
            return add(
                ["EVAL".array, UpstreamModel.declaredScript, "1".array, key, value(token)],
                .write([number], token: token))
        }
        if chance.oneIn(3) {
            let command = chance.pick(["EVAL".array, "EVAL_RO".array])
            add([command, UpstreamModel.getScript, "0".array, key], .scriptRead(number))
        } else {
            let token = token()
            add(
                ["EVAL".array, UpstreamModel.setScript, "0".array, key, value(token)],
                .script([number], token: token))
        }
    }

    func addTransaction(_ client: SimClient, _ add: ([[UInt8]], Asked.Kind) -> Void) {
        if let queued = client.queued {
            client.queued = nil
            return add(["EXEC".array], .exec(tokens: queued.tokens, keys: queued.keys, isWatched: false))
        }
        let number = key()
        let key = [UInt8]("k", number)
        switch chance.below(6) {
        case 0:
            addPlain(add)
        case 4:
            /* What changes every key: on the way at once, or queued. */
            let isSwap = pods.count == 1 && plan.forgetsNothing && chance.oneIn(2)
            let words = isSwap ? ["SWAPDB", "0", "1"].map(\.array) : ["FLUSHALL".array]
            if chance.oneIn(2) {
                arouse(client.pod, nil)
                return add(words, .change(Array(0..<plan.keys), returns: nil))
            }
            let token = token()
            add(["MULTI".array], .multi)
            add(words, .queued)
            add(["DEL".array, [UInt8]("#", token)], .queued)
            add(["EXEC".array], .exec(tokens: [token], keys: Array(0..<plan.keys), isWatched: false))
        case 3:
            /* EXEC comes later. */
            let token = token()
            add(["MULTI".array], .multi)
            add(["SET".array, key, value(token)], .queued)
            client.queued = ([token], [number])
        case 5:
            let keys = (0..<1 + chance.below(3)).map { _ in self.key() }
            add(["MULTI".array], .multi)
            for key in keys { add(["GET".array, [UInt8]("k", key)], .queued) }
            add(["EXEC".array], .readTogether(keys))
        case 1:
            /* An optimistic write, in one burst: what it read shows whether it may go through. */
            let token = token()
            add(["WATCH".array, key], .watch)
            add(["GET".array, key], .watchedRead(number))
            add(["MULTI".array], .multi)
            add(["SET".array, key, value(token)], .queued)
            add(["EXEC".array], .exec(tokens: [token], keys: [number], isWatched: true))
        default:
            let other = self.key()
            let first = token(), second = token()
            add(["UNWATCH".array], .plain)
            add(["MULTI".array], .multi)
            add(["SET".array, key, value(first)], .queued)
            if other != number { add(["SET".array, [UInt8]("k", other), value(second)], .queued) }
            let tokens = other == number ? [first] : [first, second]
            add(["EXEC".array], .exec(tokens: tokens, keys: [number, other], isWatched: false))
        }
    }

    // MARK: writers elsewhere

    func write(_ index: Int) {
        if isHealed || plan.isBehind { return }
        defer {
            let pause = plan.lengthNs / UInt64(plan.commands / 2) * plan.writersPause
            queue.push(nowNs + chance.between(pause / 4, pause * 3), .write(index))
        }
        if chance.oneIn(20) { snapshot = model.snapshot() }
        if chance.oneIn(5) { model.expireSome(&chance) }
        if isDown || nowNs < frozenUntilNs || writers[index].isClosed || model.isLoading || model.cannotSave {
            return
        }
        var commands: [[[UInt8]]] = []
        func add(_ words: [[UInt8]], _ kind: Asked.Kind) { commands.append(words) }
        switch chance.below(6) {
        case 0...2: addPlain(add, mayRead: false)
        case 3:
            let token = token()
            add(["SET".array, [UInt8]("k", key()), value(token)], .plain)
            add(["PUBLISH".array, [UInt8]("c", chance.below(2)), [UInt8]("#", self.token())], .plain)
        case 4:
            add(["SET".array, [UInt8]("k", key()), value(token())], .plain)
            add(["RPUSH".array, [UInt8]("q", chance.below(2)), [UInt8]("v", self.token())], .plain)
        default: addScript(add)
        }
        for words in commands {
            if ["ECHO", "PING", "SWAPDB"].map(\.array).contains(words[0]) { continue }
            note("writer\(index): \(Asked.text(of: words))")
            _ = model.perform(words, on: writers[index])
            writers[index].out.removeAll()
        }
        flushModel()
    }
}
