@testable import Sidecar

/// Answers — what clients hear, and what it must satisfy.
extension World {
    func hear(_ client: SimClient, _ bytes: [UInt8]) {
        client.reader.append(bytes)
        while failure == nil {
            switch client.reader.next() {
            case .partial: return
            case .malformed: return fail("\(client.name) got what is not RESP")
            case .value(let value): hear(client, value)
            }
        }
    }

    func isMessage(_ client: SimClient, _ value: RESPValue) -> [UInt8]? {
        switch value {
        case .push(let items), .array(let items):
            let isMessage = items.count == 3 && items[0] == .bulk("message".array)
            let isOfPattern = items.count == 4 && items[0] == .bulk("pmessage".array)
            guard client.habit == .subscriber, isMessage || isOfPattern, case .bulk(let text)? = items.last else {
                return nil
            }
            return text
        default: return nil
        }
    }

    func hear(_ client: SimClient, _ value: RESPValue) {
        note("\(client.name) ← \(value.text.prefix(60))")
        if let text = isMessage(client, value) {
            cover("messages")
            if let token = UpstreamModel.token(text) { tellOf(token, client) }
            return
        }
        if skipUnanswered(client, value) { return }
        guard let asked = client.asked.first else {
            return fail("\(client.name) got an answer to nothing: \(value.text.prefix(80))")
        }
        client.asked.removeFirst()
        if case .error(let text) = value {
            cover("errors")
            noteRefusal(asked, text)
        }
        if client.isFinal, value.isError {
            return fail("\(client.name): \(asked.text) failed though all is well: \(value.text)")
        }
        answer(client, asked, value)
    }

    /// Goes past what is not answered; true when this says that it is, because CLIENT REPLY is refused.
    func skipUnanswered(_ client: SimClient, _ value: RESPValue) -> Bool {
        guard let end = client.asked.firstIndex(where: { if case .unanswered = $0.kind { false } else { true } }),
            end > 0
        else { return false }
        if value.isError {
            for index in 0..<end { client.asked[index].kind = .plain }
            client.asked.removeFirst()
            return true
        }
        cover("commands without an answer")
        for asked in client.asked[..<end] { learnUnanswered(asked, client) }
        client.asked.removeFirst(end)
        return false
    }

    /// What stands before an answer has been carried out before it, if at all.
    private func learnUnanswered(_ asked: Asked, _ client: SimClient) {
        guard asked.words[0] == "SET".array, let key = Int(String(decoding: asked.words[1].dropFirst(), as: UTF8.self)),
            let token = UpstreamModel.token(asked.words[2])
        else { return }
        let number = model.truth.execution(of: token)
        if number > 0 { learn(number, keys: [key], client) }
    }

    /// The sidecar says that a write has not been carried out: then it must never be.
    func noteRefusal(_ asked: Asked, _ text: [UInt8]) {
        guard isOwn(text) else { return }
        switch asked.kind {
        case .write(_, let token), .script(_, let token): refused.append((token, asked.text))
        case .pass(let token):
            let reads = ["HGET", "XPENDING", "EXISTS"].map(\.array)
            if !reads.contains(asked.words[0]) { refused.append((token, asked.text)) }
        default: break
        }
    }

    /// An error that the upstream has not said.
    func isOwn(_ error: [UInt8]) -> Bool {
        error.starts(with: "ERR upstream".utf8) || error.starts(with: "ERR local_memory".utf8)
    }

    /// Something that carries a token has come from the upstream.
    func tellOf(_ token: Int, _ client: SimClient) {
        client.pod.floor = max(client.pod.floor, model.truth.execution(of: token))
        arouse(client.pod, nil)
    }

    func answer(_ client: SimClient, _ asked: Asked, _ value: RESPValue) {
        if plan.isBehind { noteHeard(asked, value, client) }
        switch asked.kind {
        case .read(let keys):
            if value.isError { return }
            var values: [UInt64] = []
            if keys.count > 1 || asked.words[0] == "MGET".array {
                guard case .array(let items) = value, items.count == keys.count else {
                    return fail("\(client.name): \(asked.text) was answered with \(value.text.prefix(80))")
                }
                for item in items {
                    guard let one = hash(item) else { return fail("\(client.name): \(asked.text) got \(item.text)") }
                    values.append(one)
                }
            } else {
                guard let one = hash(value) else {
                    return fail("\(client.name): \(asked.text) was answered with \(value.text.prefix(80))")
                }
                /* GETRANGE has no null; no value is empty. */
                values = [value == .bulk([]) ? 0 : one]
            }
            cover("reads")
            judge(values, keys, asked, client)
        case .scriptRead(let key):
            if value.isError { return }
            guard let one = hash(value) else { return fail("\(client.name): \(asked.text) got \(value.text)") }
            judge([one], [key], asked, client)
        case .write(let keys, let token):
            if !value.isError {
                cover("rule 2: own writes")
                learn(token: token, keys: keys, client, asked)
                arouse(client.pod, keys.first)
            }
        case .change(let keys, let returned):
            if value.isError { return }
            guard let number = change(asked, client.pod) else {
                return fail("\(client.name) got an answer to \(asked.text), which the upstream has never carried out")
            }
            cover("rule 2: own writes")
            if let returned, let one = hash(value) { judge([one], [returned], asked, client) }
            learn(number, keys: keys, client)
            arouse(client.pod, keys.first)
        case .unnamedRead:
            guard case .array(let items) = value, items.count == plan.keys else { return }
            cover("rule 5: reads of keys not named")
            judge(items.compactMap(hash), Array(0..<plan.keys), asked, client)
        case .readTogether(let keys):
            guard case .array(let items) = value else { return }
            cover("rule 5: transactions that read")
            let values = items.compactMap(hash)
            guard values.count == keys.count else { return fail("\(client.name): EXEC got \(value.text.prefix(80))") }
            judge(values, keys, asked, client)
            arouse(client.pod, keys.first)
        case .script(let keys, let token):
            if value.isError { return }
            learn(token: token, keys: [], client, asked)
            arouse(client.pod, keys[0])
            /* Only announcements tell what it has written: it counts like what was read. */
            for key in keys where client.pod.loop.flow.status.tracking {
                client.pod.read[key] = max(client.pod.read[key], model.truth.execution(of: token))
                client.ownRead[key] = max(client.ownRead[key], model.truth.execution(of: token))
            }
        case .pass(let token):
            if case .error(let text) = value {
                if !isOwn(text) { tellOf(token, client) }
            } else {
                learn(token: token, keys: [], client, asked)
                judgeOrder(token, asked, client)
            }
        case .exactly(let wanted):
            if !value.isError, value != wanted {
                fail(
                    "\(client.name): \(asked.text) was answered with \(value.text.prefix(80)): replies are out of order"
                )
            }
        case .plain, .unanswered: break
        case .reset:
            guard !value.isError else { return }
            client.reset()
            if value != .simple("RESET".array) { fail("\(client.name): RESET was answered with \(value.text)") }
        case .watch: client.isWatching = !value.isError
        case .multi: client.isInMulti = !value.isError
        case .queued:
            if case .simple(let bytes) = value, bytes == "QUEUED".array { return }
            if !value.isError, client.isInMulti {
                fail("\(client.name): \(asked.text) was not queued: \(value.text.prefix(80))")
            }
        case .watchedRead(let key):
            client.watchedRead = nil
            guard let one = hash(value) else { return }
            judge([one], [key], asked, client)
            if client.isWatching { client.watchedRead = (key, one) }
        case .exec(let tokens, let keys, let isWatched):
            if plan.isBehind { noteExec(value, client) }
            guard case .array = value else { return }
            for one in tokens { learn(token: one, keys: keys, client, asked) }
            arouse(client.pod, keys[0])
            if isWatched, let watched = client.watchedRead { judgeWatch(client, asked, tokens[0], watched) }
        case .pop:
            client.isBlocked = false
            guard case .array(let items) = value, items.count == 2, case .bulk(let item) = items[1] else { return }
            cover("pops")
            if let token = UpstreamModel.token(item) { tellOf(token, client) }
        case .subscribe:
            switch value {
            case .push(let items), .array(let items):
                if items.count == 3 { return }
                fail("\(client.name): \(asked.text) was answered with \(value.text)")
            default:
                if !value.isError { fail("\(client.name): \(asked.text) was answered with \(value.text)") }
            }
        }
    }

    /// EXEC went through: what was read under WATCH must have been there until then.
    func judgeWatch(_ client: SimClient, _ asked: Asked, _ token: Int, _ watched: (key: Int, value: UInt64)) {
        let number = model.truth.execution(of: token)
        guard let last = model.truth.timelines[watched.key].last(where: { $0.from < number }) else { return }
        cover("rule 5: watched transactions")
        if last.value != watched.value {
            fail(
                "\(client.name): EXEC went through though k\(watched.key) was \(shorten(last.value)) and not"
                    + " \(shorten(watched.value)), as it had read under WATCH")
        }
    }
}
