@testable import Sidecar

/// Registers — what write-behind promises, where nobody but the pod writes: each key is a register. A read returns what was
/// acknowledged last before it was sent, or something written at the same time as it; a client's own commands are in its
/// order; reads never go back; what is sent to others behind a write finds that write upstream; and at the end the upstream
/// has of every key the last value that was acknowledged, or one written at the same time.
struct Registers {
    struct Write {
        /// Hash of the value; 0: the key is deleted.
        var value: UInt64
        /// Counted with everything that clients send and hear.
        var sentAt: Int
        /// .max: not acknowledged, or never.
        var heardAt: Int
        var client: Int
        /// The end of a write's time to live: a write of nothing, by nobody, that may be seen from when that one was sent. 0:
        /// it is none.
        var endOf = 0
        /// Its end has been seen.
        var isOver = false

        /// A read whose floor is above this may not return it.
        var oldFrom: Int { isOver ? sentAt : heardAt }
    }

    private(set) var writes: [[Write]]
    private(set) var clock = 0
    /// By key: what was sent before this is old.
    private(set) var floor: [Int]

    init(keys: Int) {
        writes = Array(repeating: [Write(value: 0, sentAt: 0, heardAt: 0, client: -1)], count: keys)
        floor = Array(repeating: 0, count: keys)
    }

    mutating func tick() -> Int {
        clock += 1
        return clock
    }

    mutating func send(_ key: Int, _ value: UInt64, at: Int, client: Int) {
        writes[key].append(Write(value: value, sentAt: at, heardAt: .max, client: client))
    }

    /// What was sent then ends by itself, some time.
    mutating func sendEnd(_ key: Int, of sentAt: Int) {
        writes[key].append(Write(value: 0, sentAt: tick(), heardAt: .max, client: -1, endOf: sentAt))
    }

    /// The writes of the command sent then are acknowledged.
    mutating func acknowledge(_ key: Int, sentAt: Int) {
        let now = tick()
        for index in writes[key].indices {
            let write = writes[key][index]
            if write.sentAt == sentAt { writes[key][index].heardAt = min(write.heardAt, now) }
            /* What this one replaces does not end any more; what has not been answered yet may come behind it. */
            guard write.endOf != 0, write.endOf < sentAt, write.heardAt == .max,
                let ended = writes[key].first(where: { $0.sentAt == write.endOf }), ended.heardAt != .max
            else { continue }
            writes[key][index].heardAt = max(write.sentAt, ended.heardAt)
        }
        floor[key] = max(floor[key], sentAt)
    }

    /// A process has died: what was only seen, in its queue, may be gone with it.
    mutating func forgetUnacknowledged() {
        for key in floor.indices {
            floor[key] = writes[key].lazy.filter { $0.heardAt != .max }.map(\.sentAt).max() ?? 0
        }
    }

    /// They are refused: nobody may ever see them.
    mutating func refuse(_ key: Int, sentAt: Int) {
        writes[key].removeAll { $0.sentAt == sentAt || $0.endOf == sentAt }
    }

    /// Whether a read sent at `sentAt` behind all that is older than `floor` may return this; nil: it may, and this is what
    /// it has seen.
    func find(_ key: Int, _ value: UInt64, floor: Int, sentAt: Int, client: Int) -> (Write, isOnly: Bool)? {
        /* Of several that it may be, the oldest: it tells least. */
        let found = writes[key].filter { write in
            write.value == value && write.oldFrom >= floor && !(write.client == client && write.sentAt > sentAt)
        }
        return found.first.map { ($0, found.count == 1) }
    }

    /// `isOnly`: it can have been no other.
    mutating func saw(_ key: Int, _ write: Write, isOnly: Bool) {
        floor[key] = max(floor[key], write.sentAt)
        /* Who has seen that it is gone must not see it again. */
        guard isOnly, write.endOf != 0, let over = writes[key].firstIndex(where: { $0.sentAt == write.endOf }),
            writes[key][over].heardAt != .max
        else { return }
        writes[key][over].isOver = true
    }
}

extension World {
    /// What a command writes, if these are registers.
    static func effects(of words: [[UInt8]]) -> [(key: Int, value: UInt64)] {
        func key(_ word: [UInt8]) -> Int? {
            word.first == UInt8(ascii: "k") ? Int(String(decoding: word.dropFirst(), as: UTF8.self)) : nil
        }
        switch String(decoding: words[0], as: UTF8.self) {
        case "SET": return key(words[1]).map { [($0, Truth.hash(words[2]))] } ?? []
        case "SETEX", "PSETEX": return key(words[1]).map { [($0, Truth.hash(words[3]))] } ?? []
        case "MSET":
            return stride(from: 1, to: words.count - 1, by: 2).compactMap { place in
                key(words[place]).map { ($0, Truth.hash(words[place + 1])) }
            }
        case "DEL": return key(words[1]).map { [($0, UInt64(0))] } ?? []
        case "EVAL": return words.count == 5 ? key(words[3]).map { [($0, Truth.hash(words[4]))] } ?? [] : []
        default: return []
        }
    }

    /// A command is sent: noted, and told what is old by now.
    func noteSent(_ asked: inout Asked, _ client: SimClient, _ keys: [Int]) {
        asked.number = registers.tick()
        asked.floors = keys.map { registers.floor[$0] }
        for (key, value) in Self.effects(of: asked.words) {
            registers.send(key, value, at: asked.number, client: client.id)
            if asked.words[0] == "PSETEX".array { registers.sendEnd(key, of: asked.number) }
        }
    }

    /// Its reply has come. Of a transaction EXEC's reply is that of all its writes.
    func noteHeard(_ asked: Asked, _ value: RESPValue, _ client: SimClient) {
        let effects = Self.effects(of: asked.words)
        guard !effects.isEmpty else { return }
        if value == .simple("QUEUED".array) { return client.queuedWrites.append((effects.map(\.key), asked.number)) }
        let isRefused = value.isError || (asked.words.contains("NX".array) && value == .null)
        for (key, _) in effects {
            if isRefused {
                registers.refuse(key, sentAt: asked.number)
            } else {
                registers.acknowledge(key, sentAt: asked.number)
                client.ownFloor[key] = max(client.ownFloor[key], asked.number)
            }
        }
    }

    func noteExec(_ value: RESPValue, _ client: SimClient) {
        defer { client.queuedWrites = [] }
        for (keys, number) in client.queuedWrites {
            for key in keys {
                if case .array = value {
                    registers.acknowledge(key, sentAt: number)
                    client.ownFloor[key] = max(client.ownFloor[key], number)
                } else {
                    registers.refuse(key, sentAt: number)
                }
            }
        }
    }

    func judgeRegisters(_ values: [UInt64], _ keys: [Int], _ asked: Asked, _ client: SimClient) {
        let isStrict = client.pod.laxNs < asked.atNs && plan.config.fence
        guard isStrict || plan.isPlainOnly else { return }
        for (place, key) in keys.enumerated() {
            let floor = max(asked.floors[place], client.ownFloor[key])
            guard
                let (write, isOnly) = registers.find(
                    key, values[place], floor: floor, sentAt: asked.number, client: client.id)
            else {
                let shown = registers.writes[key].suffix(6).map {
                    "\(shorten($0.value)) sent \($0.sentAt)" + ($0.heardAt == .max ? "" : " heard \($0.heardAt)")
                }
                return fail(
                    "\(client.name): \(asked.text), sent \(asked.number), got \(shorten(values[place])) of k\(key), and what was"
                        + " heard before \(floor) is old: \(shown.joined(separator: ", "))")
            }
            registers.saw(key, write, isOnly: isOnly)
            client.ownFloor[key] = max(client.ownFloor[key], write.sentAt)
        }
    }

    /// A message or another write of a client has been carried out: what it had written before must have been.
    func judgeOrder(_ token: Int, _ asked: Asked, _ client: SimClient) {
        let number = model.truth.execution(of: token)
        guard number > 0, plan.isBehind else { return }
        cover("write-behind: messages behind writes")
        for key in 0..<plan.keys {
            let own = registers.writes[key].last {
                $0.client == client.id && $0.sentAt < asked.number && $0.heardAt != .max
            }
            guard let own, let had = model.truth.timelines[key].last(where: { $0.from <= number }) else { continue }
            let isOld = !registers.writes[key].contains { $0.value == had.value && $0.heardAt >= own.sentAt }
            if isOld {
                return fail(
                    "\(client.name): \(asked.text) was carried out when k\(key) was \(shorten(had.value)), before its own"
                        + " \(shorten(own.value))")
            }
        }
    }

    /// All is well and everything has been sent: the upstream has what was acknowledged last.
    func judgeUpstream() {
        guard plan.isBehind, failure == nil else { return }
        for pod in pods where pod.loop.flow.unwritten > 0 {
            fail("pod\(pod.index) has not sent all it has acknowledged")
        }
        for key in 0..<plan.keys where failure == nil {
            let has = model.truth.current(key).value
            let last = registers.writes[key].filter { $0.heardAt != .max }.map(\.sentAt).max() ?? 0
            cover("write-behind: registers compared at the end")
            if !registers.writes[key].contains(where: { $0.value == has && $0.heardAt >= last }) {
                fail("at the end the upstream has \(shorten(has)) of k\(key), though a later value was acknowledged")
            }
        }
    }

    /// What clients ask of registers.
    func addRegister(_ client: SimClient, _ add: ([[UInt8]], Asked.Kind) -> Void) {
        let number = key()
        let key = [UInt8]("k", number)
        let token = token()
        if client.habit == .transactions, chance.oneIn(3) {
            let other = self.key()
            add(["MULTI".array], .multi)
            add(["SET".array, key, value(token)], .queued)
            if other != number { add(["SET".array, [UInt8]("k", other), value(self.token())], .queued) }
            return add(["EXEC".array], .exec(tokens: [], keys: [number], isWatched: false))
        }
        if client.habit == .transactions, chance.oneIn(4) {
            add(["MULTI".array], .multi)
            add(["GET".array, key], .queued)
            return add(["EXEC".array], .readTogether([number]))
        }
        if client.habit == .scripts, chance.oneIn(3) {
            return chance.oneIn(2)
                ? add(["EVAL".array, UpstreamModel.getScript, "0".array, key], .scriptRead(number))
                : add(["EVAL".array, UpstreamModel.setScript, "0".array, key, value(token)], .plain)
        }
        switch chance.below(20) {
        case 0...6: add(["GET".array, key], .read([number]))
        case 7:
            let other = self.key()
            add(["MGET".array, key, [UInt8]("k", other)], .read([number, other]))
        case 8...12: add(["SET".array, key, value(token)], .plain)
        case 13:
            /* By the token, so that what the other seeds draw stays as it was. */
            let ms = token % 2 == 0 ? 600_000 : 20 + token * 37 % 1_500
            add(["PSETEX".array, key, [UInt8](decimal: ms), value(token)], .plain)
        case 14:
            let other = self.key()
            guard other != number else { return add(["GET".array, key], .read([number])) }
            add(["MSET".array, key, value(token), [UInt8]("k", other), value(self.token())], .plain)
        case 15: add(["DEL".array, key], .plain)
        case 16: add(["GETRANGE".array, key, "0".array, "-1".array], .read([number]))
        case 17: add(["SET".array, key, value(token), "NX".array], .plain)
        case 18: add(["PUBLISH".array, [UInt8]("c", chance.below(2)), [UInt8]("#", token)], .pass(token: token))
        default: add(["RPUSH".array, [UInt8]("q", chance.below(2)), value(token)], .pass(token: token))
        }
    }
}
