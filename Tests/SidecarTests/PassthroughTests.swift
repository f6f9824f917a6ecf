import Testing

@testable import Sidecar

@Suite("Commands that are not cached")
struct PassthroughTests {
    @Test("A command travels as it came, and its reply finds its slot")
    func pass() {
        let world = FlowWorld.connected()
        #expect(world.turn(.read(3, "HGET", "h", "f"), .write(4, "DEL", "k")) == ["send 1: HGET h f", "send 1: DEL k"])
        #expect(world.turn(.reply(1, "$1|x"), .reply(1, ":1")) == ["answer 3 resp3: $1|x|", "answer 4 resp3: :1|"])
    }

    @Test("A reply that nobody asked for ends the link")
    func surplus() {
        let world = FlowWorld.connected()
        let ordered = world.turn(.reply(1, "+OK"))
        #expect(ordered.first == "abort link 1")
        #expect(world.status.lastError == "the upstream answered more than it was asked")
    }

    @Test("When the link is lost, reads fail, and writes of unknown fate close their clients")
    func lost() {
        let world = FlowWorld.connected()
        _ = world.turn(
            .read(3, "HGET", "h", "f"), .write(4, "DEL", "k"), .miss(7, "a"), .miss(8, "b"), .mget(9, "MGET", "c"))
        let error = "-ERR upstream up:1 is unreachable: the upstream closed the connection|"
        #expect(
            world.turn(.down(1)) == [
                "trust 1 not", "answer 3: \(error)", "close slot 4", "fail 7: \(error)", "fail 8: \(error)",
                "fail 9: \(error)", "hold",
            ])
    }

    @Test("While there is no link, everything gets an error at once")
    func unsent() {
        let world = FlowWorld()
        world.resolve(.failed("no such name"))
        _ = world.orders.take()
        let error = "-ERR upstream up:1 is unreachable: resolve: no such name|"
        #expect(
            world.turn(.miss(7, "a"), .mgetKey(8, "b"), .mget(8, "MGET", "b"), .write(4, "DEL", "k"))
                == ["fail 7: \(error)", "fail 8: \(error)", "answer 4: \(error)"])
        #expect(world.turn(.read(5, "LRANGE", "l", onRESP2: true)) == ["answer 5: \(error)"])
    }

    @Test("The shared RESP2 link is made for the first command that needs it, which waits in order")
    func shared() {
        let world = FlowWorld.connected()
        #expect(
            world.turn(
                .read(3, "ZRANGE", "z", onRESP2: true), .write(4, "EVAL", "x", onRESP2: true))
                == ["open 2: addr"])
        #expect(
            world.turn(.up(2)) == ["send 2: HELLO 2 SETNAME ferrite-sidecar", "send 2: INFO server", "send 2: PING"])
        #expect(
            world.turn(.reply(2, "*0"), .reply(2, "$0|"), .reply(2, "+PONG")) == ["send 2: ZRANGE z", "send 2: EVAL x"])
        #expect(world.turn(.reply(2, "*0"), .reply(2, ":1")) == ["answer 3: *0|", "answer 4: :1|"])
        #expect(world.turn(.read(5, "ZRANGE", "y", onRESP2: true)) == ["send 2: ZRANGE y"])
    }

    @Test("If the RESP2 link cannot be made, what waited for it gets an error, and the next one tries again later")
    func sharedRefused() {
        let world = FlowWorld.connected()
        _ = world.turn(.write(3, "EVAL", "x", onRESP2: true))
        let error = "-ERR upstream up:1 is unreachable: Connection refused|"
        #expect(world.turn(.down(2, 111)) == ["answer 3: \(error)"])
        #expect(world.turn(.read(4, "ZRANGE", "z", onRESP2: true)) == ["answer 4: \(error)"])
        _ = world.pass(ms: 100)
        #expect(world.turn(.read(5, "ZRANGE", "z", onRESP2: true)) == ["open 3: addr"])
        #expect(world.pass(ms: 1_000).contains("close link 3"))
    }

    @Test("The RESP2 link's loss closes the clients of its writes")
    func sharedLost() {
        let world = FlowWorld.connected()
        _ = world.turn(.read(3, "ZRANGE", "z", onRESP2: true))
        _ = world.turn(.up(2), .reply(2, "*0"), .reply(2, "$0|"), .reply(2, "+PONG"))
        _ = world.turn(.write(4, "EVAL", "x", onRESP2: true))
        let error = "-ERR upstream up:1 is unreachable: Connection reset by peer|"
        #expect(world.turn(.down(2, 104)) == ["answer 3: \(error)", "close slot 4"])
    }

    @Test("A RESP2 link that owes an answer and is silent for link_timeout is given up")
    func sharedSilent() {
        let world = FlowWorld.connected()
        _ = world.turn(.read(3, "ZRANGE", "z", onRESP2: true))
        _ = world.turn(.up(2), .reply(2, "*0"), .reply(2, "$0|"), .reply(2, "+PONG"))
        let sentMs = world.nowMs
        var ordered: [String] = []
        while !ordered.contains("close link 2"), world.nowMs < sentMs + 6_000 {
            /* The tracked link is well. */
            ordered = world.pass(ms: 1)
            if ordered.contains("send 1: PING") { _ = world.turn(.reply(1, "+PONG")) }
        }
        #expect(world.nowMs - sentMs >= 5_000 && world.nowMs - sentMs < 5_010)
        #expect(
            ordered.contains(
                "answer 3: -ERR upstream up:1 is unreachable: its RESP2 connection gave no answer for 5000 ms|"))
    }

    @Test("More than a megabyte does not wait for the RESP2 link")
    func sharedBound() {
        let world = FlowWorld.connected()
        let big = String(repeating: "x", count: 600_000)
        let ordered = world.turn(
            .write(3, "EVAL", big, onRESP2: true), .write(4, "EVAL", big, onRESP2: true))
        #expect(ordered.count == 2)
        #expect(ordered.last?.hasPrefix("answer 4: -ERR") == true)
    }

    @Test("A server that speaks only RESP2 needs no second link")
    func onlyRESP2() {
        let world = FlowWorld()
        world.resolve()
        _ = world.turn(.up(1))
        _ = world.turn(
            .reply(1, "-ERR unknown command 'HELLO'"), .reply(1, "+OK"), .reply(1, "$0|"), .reply(1, "+PONG"))
        _ = world.turn(.reply(1, "$0|"), .reply(1, "+PONG"))
        #expect(world.turn(.read(3, "ZRANGE", "z", onRESP2: true)) == ["send 1: ZRANGE z"])
        _ = world.turn(.reply(1, "*0"))
        #expect(world.turn(.reply(1, "*0")) == ["answer 3: *0|"])
    }

    @Test("Clients are held while the link's socket takes no more")
    func backlog() {
        let world = FlowWorld.connected()
        world.orders.backlogs[1] = 2 << 20
        #expect(world.turn(.read(3, "GET", "a")).last == "hold")
        world.orders.backlogs[1] = 300 << 10
        #expect(world.turn(.reply(1, "$-1")) == ["answer 3 resp3: $-1|"])
        world.orders.backlogs[1] = 0
        #expect(world.pass(ms: 5) == ["release"])
    }

    @Test("Reads are held no longer than they would wait for their answer: then they hear that it would come too late")
    func clogged() {
        let world = FlowWorld.connected()
        world.orders.backlogs[1] = 2 << 20
        #expect(world.turn(.write(3, "SET", "a", "v")).last == "hold")
        #expect(world.pass(ms: 49) == [])
        #expect(world.pass(ms: 1) == ["hold commands"])
        let late = "-ERR upstream up:1 does not answer reads within 50 ms: only few are sent|"
        #expect(world.turn(.miss(7, "k")) == ["fail 7: \(late)"])
        #expect(world.turn(.mgetKey(8, "k"), .mgetKey(9, "j"), .mget(8, "MGET", "k", "j")).count == 2)
        world.orders.backlogs[1] = 0
        #expect(world.pass(ms: 5) == ["release"])
        #expect(world.turn(.miss(10, "k")).contains("send 1: GET k"))
    }

    @Test("INFO is the upstream's with our section behind it")
    func info() {
        let world = FlowWorld.connected()
        #expect(world.turn(.ask(3, "INFO")) == ["send 1: INFO"])
        let resp2 = world.turn(.reply(1, "=14|txt:# Server|"))
        #expect(resp2.count == 1)
        #expect(resp2[0].hasPrefix("answer 3: $"))
        #expect(
            resp2[0].contains(
                "# Server||# Sidecar|network_engine:epoll|network_reason:|mode:read-through|upstream:up:1|"))
        #expect(resp2[0].contains("|tracking:on|"))
        #expect(resp2[0].hasSuffix("|hits:7||"))
        _ = world.turn(.ask(4, "INFO", "everything", resp3: true))
        #expect(world.turn(.reply(1, "=14|txt:# Server|"))[0].hasPrefix("answer 4: ="))
        _ = world.turn(.ask(5, "INFO", "replication"))
        #expect(world.turn(.reply(1, "=14|txt:# Server|")) == ["answer 5: $10|# Server||"])
    }

    @Test("INFO answers without an upstream, and `INFO sidecar` never asks it")
    func ownInfo() {
        let world = FlowWorld.connected()
        #expect(world.turn(.ask(3, "INFO", "SIDECAR"))[0].contains("|# Sidecar|network_engine:epoll|"))
        _ = world.turn(.ask(4, "INFO"))
        let ordered = world.turn(.down(1))
        #expect(ordered.contains { $0.hasPrefix("answer 4: $") && $0.contains("connected_clients:") })
        #expect(world.turn(.ask(5, "INFO"))[0].contains("redis_version:7.0.15"))
    }
}
