import Glibc
import Testing

/// The model is no better than its likeness: the same commands, on the same connections, to a real redis-server.
@Suite("The model of the upstream", .serialized)
struct ModelTests {
    /// Connections that differ in protocol and tracking, as the sidecar's and its clients' do.
    private static let openings: [[[String]]] = [
        [["HELLO", "3"], ["CLIENT", "TRACKING", "ON", "OPTIN"]],
        [["HELLO", "3"], ["CLIENT", "TRACKING", "ON"]],
        [["HELLO", "3"], ["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "k1"]],
        [["HELLO", "3"]],
        [],
        [],
        [["HELLO", "3"]],
    ]

    @Test("It answers and announces as redis-server does", arguments: 1...120 as ClosedRange<UInt64>)
    func likeness(_ seed: UInt64) throws {
        guard let redis = try? RealRedis() else {
            Issue.record("redis-server cannot be started")
            return
        }
        var chance = Chance(seed: seed)
        let model = UpstreamModel(keys: 4)
        let sockets = Self.openings.map { _ in redis.connect() }
        let connections = Self.openings.map { _ in model.connect() }
        defer { for socket in sockets { close(socket) } }
        var history: [String] = []
        func send(_ words: [[UInt8]], _ index: Int) {
            var bytes: [UInt8] = []
            bytes.appendCommand(words)
            history.append("\(index): \(words.map { String(decoding: $0, as: UTF8.self) }.joined(separator: " "))")
            model.nowNs = Self.nowNs()
            redis.send(bytes, on: sockets[index])
            redis.settle()
            model.receive(bytes, on: connections[index])
            /* Gone for both when the next command comes. */
            if words.suffix(2) == ["PX".array, "1".array] { usleep(3_000) }
        }
        func open(_ index: Int) {
            for words in Self.openings[index] { send(words.map(\.array), index) }
            _ = redis.received(on: sockets[index])
            connections[index].out = []
        }
        for index in Self.openings.indices { open(index) }
        for _ in 0..<400 {
            let index = chance.below(Self.openings.count)
            /* Who subscribes in RESP2 may do little else. */
            let subscribes = index == 5 || index == 6 && chance.oneIn(2)
            let words = subscribes ? Self.subscription(&chance) : Self.command(&chance)
            let isBlocked = words[0] == "BLPOP".array
            let isShort = words.suffix(2) == ["PX".array, "1".array]
            /* When they would be carried out is not known. */
            let isState = words[0] == "RESET".array || words.count > 1 && words[1] == "REPLY".array
            if isState || isShort, connections[index].queued != nil || connections[index].blocked != nil { continue }
            send(words, index)
            for place in sockets.indices {
                var real = redis.received(on: sockets[place])
                let ours = connections[place].out
                connections[place].out = []
                for _ in 0..<100 where real.count < ours.count {
                    usleep(1_000)
                    real += redis.received(on: sockets[place])
                }
                if Self.comparable(real) != Self.comparable(ours) {
                    Issue.record(
                        """
                        seed \(seed), connection \(place), after
                        \(history.suffix(12).joined(separator: "\n"))
                        redis-server: \(String(decoding: real, as: UTF8.self).debugDescription)
                        the model:    \(String(decoding: ours, as: UTF8.self).debugDescription)
                        """)
                    return
                }
            }
            if words[0] == "RESET".array, connections[index].blocked == nil { open(index) }
            if isBlocked, chance.oneIn(2) { send(["RPUSH".array, words[1], [UInt8]("v", chance.below(9))], 4) }
        }
    }

    /* Times to live differ by what has passed between the two; nothing else that is counted comes near them. */
    private static func comparable(_ bytes: [UInt8]) -> [UInt8] {
        String(decoding: bytes, as: UTF8.self).split(separator: "\r\n", omittingEmptySubsequences: false).map {
            $0.hasPrefix(":9") && $0.count == 6 || $0 == ":100000" ? ":many" : String($0)
        }.joined(separator: "\r\n").array
    }

    private static func nowNs() -> UInt64 {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        return UInt64(now.tv_sec) * second + UInt64(now.tv_nsec)
    }

    private static func subscription(_ chance: inout Chance) -> [[UInt8]] {
        let channel = [UInt8]("c", chance.below(3))
        if chance.oneIn(12) { return ["RESET".array] }
        let pattern = "c*".array /* of several, Redis tells in the order of its hash table */
        return chance.pick([
            ["SUBSCRIBE".array, channel], ["UNSUBSCRIBE".array, channel], ["PSUBSCRIBE".array, pattern],
            ["PUNSUBSCRIBE".array, pattern],
        ])
    }

    private static func command(_ chance: inout Chance) -> [[UInt8]] {
        let key = [UInt8]("k", chance.below(4))
        let other = [UInt8]("k", chance.below(4))
        let value = [UInt8]("v", chance.below(100))
        let list = [UInt8]("q", chance.below(2))
        let long = "100000".array
        switch chance.below(73) {
        case 0...4: return ["GET".array, key]
        case 5...7: return ["CLIENT".array, "CACHING".array, "YES".array]
        case 8: return ["PTTL".array, key]
        case 9: return ["MGET".array, key, other]
        case 10...12: return ["SET".array, key, value]
        case 13: return ["SET".array, key, value, "PX".array, long]
        case 14: return ["SET".array, key, value, "NX".array]
        case 15: return ["SET".array, key, value, "GET".array]
        case 16: return ["MSET".array, key, value, other, value]
        case 17: return ["DEL".array, key, other]
        case 18: return ["EXISTS".array, key, other]
        case 19: return ["PEXPIRE".array, key, long]
        case 20: return ["PERSIST".array, key]
        case 21: return ["APPEND".array, key, value]
        case 22: return ["GETDEL".array, key]
        case 23: return ["GETEX".array, key, "PX".array, long]
        case 24: return ["RENAME".array, key, other]
        case 25: return ["COPY".array, key, other, "REPLACE".array]
        case 26: return ["COPY".array, key, other]
        case 27: return ["MOVE".array, key, "1".array]
        case 28: return ["TYPE".array, key]
        case 29: return ["STRLEN".array, key]
        case 30: return ["FLUSHALL".array]
        case 31: return ["FLUSHDB".array]
        case 32: return ["SWAPDB".array, "0".array, "1".array]
        case 33: return ["DBSIZE".array]
        case 34: return ["GETSET".array, key, value]
        case 35: return ["LPUSH".array, list, value, "w".array]
        case 36: return ["RPUSH".array, list, value]
        case 37: return ["LPOP".array, list]
        case 38: return ["LLEN".array, list]
        case 39: return ["BLPOP".array, list, "0".array]
        case 40: return ["HSET".array, "h".array, value, "1".array]
        case 41: return ["HGET".array, "h".array, value]
        case 42, 43: return ["MULTI".array]
        case 44, 45: return ["EXEC".array]
        case 46: return ["DISCARD".array]
        case 47: return ["WATCH".array, key]
        case 48: return ["UNWATCH".array]
        case 49: return ["EVAL".array, UpstreamModel.setScript, "0".array, key, value]
        case 50: return ["EVAL".array, UpstreamModel.getScript, "0".array, key]
        case 51, 52: return ["PUBLISH".array, [UInt8]("c", chance.below(3)), value]
        case 53: return ["SELECT".array, chance.oneIn(3) ? "1".array : "0".array]
        case 54: return ["PSETEX".array, key, long, value]
        case 55, 56: return ["RPUSH".array, list, key, other]
        case 57:
            return [
                chance.pick(["SORT".array, "SORT_RO".array]), list, "BY".array, "nosort".array, "GET".array, "*".array,
            ]
        case 58: return ["EVAL_RO".array, UpstreamModel.getScript, "0".array, key]
        case 59: return ["GETRANGE".array, key, "0".array, "-1".array]
        case 60: return ["SET".array, key, value, "PX".array, "1".array]
        case 61: return ["SETRANGE".array, key, "0".array, value]
        case 62, 63: return ["INCR".array, chance.oneIn(3) ? "n".array : key]
        case 64: return ["EVAL".array, UpstreamModel.declaredScript, "1".array, key, value]
        case 65: return ["EVAL_RO".array, UpstreamModel.getScript, "1".array, other, key]
        case 66: return ["CLIENT".array, "REPLY".array, "SKIP".array]
        case 67: return ["CLIENT".array, "REPLY".array, "OFF".array]
        case 68...70: return ["CLIENT".array, "REPLY".array, "ON".array]
        case 71: return ["RESET".array]
        default: return ["PING".array]
        }
    }
}
