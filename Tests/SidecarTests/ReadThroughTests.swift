import Testing

@testable import Sidecar

@Suite("Reads that miss go upstream and come back into the store")
struct ReadThroughTests {
    @Test("A miss is registered for tracking by its PTTL, which precedes its GET")
    func lonelyMiss() {
        let world = FlowWorld.connected()
        #expect(world.turn(.miss(7, "k")) == ["send 1: CLIENT CACHING YES", "send 1: PTTL k", "send 1: GET k"])
        #expect(world.turn(.reply(1, "+OK"), .reply(1, ":5000")) == ["arm 7: ttl 5000 sent 1000"])
        #expect(world.turn(.reply(1, "$1|v")) == ["fill 7: $1|v|"])
    }

    @Test("Misses in a row share one CACHING, and EXISTS's reply arms them all")
    func group() {
        let world = FlowWorld.connected()
        #expect(
            world.turn(.miss(7, "a"), .miss(8, "b"), .mgetKey(9, "c")) == [
                "send 1: CLIENT CACHING YES", "send 1: EXISTS a b c", "send 1: PTTL a", "send 1: GET a",
                "send 1: PTTL b", "send 1: GET b", "send 1: PTTL c",
            ])
        #expect(
            world.turn(.reply(1, "+OK"), .reply(1, ":2")) == [
                "arm 7: ttl -1 sent 1000", "arm 8: ttl -1 sent 1000", "arm 9: ttl -1 sent 1000",
            ])
        #expect(
            world.turn(
                .reply(1, ":10"), .reply(1, "$1|x"), .push(1, ">2|$10|invalidate|*1|$1|b"), .reply(1, ":-1"),
                .reply(1, "$1|y"), .reply(1, ":-2")) == [
                    "arm 7: ttl 10 sent 1000", "fill 7: $1|x|", "drop b", "arm 8: ttl -1 sent 1000", "fill 8: $1|y|",
                    "arm 9: ttl -2 sent 1000",
                ])
    }

    @Test("What CACHING or EXISTS refused is answered but not kept")
    func untracked() {
        let world = FlowWorld.connected()
        _ = world.turn(.miss(7, "k"))
        #expect(
            world.turn(.reply(1, "-ERR no"), .reply(1, ":5"), .reply(1, "$1|v")) == [
                "arm 7: ttl 5 sent 1000 not kept", "fill 7: $1|v|",
            ])
        _ = world.turn(.miss(8, "a"), .miss(9, "b"))
        #expect(world.turn(.reply(1, "+OK"), .reply(1, "-NOPERM")) == [])
        #expect(world.turn(.reply(1, ":5"), .reply(1, "$1|v")) == ["arm 8: ttl 5 sent 1000 not kept", "fill 8: $1|v|"])
    }

    @Test("What has a PTTL that is no number is not kept, alone or in a group")
    func refusedPTTL() {
        let world = FlowWorld.connected()
        _ = world.turn(.miss(7, "k"))
        #expect(
            world.turn(.reply(1, "+OK"), .reply(1, "-NOPERM"), .reply(1, "$1|v")) == [
                "arm 7: ttl -1 sent 1000 not kept", "fill 7: $1|v|",
            ])
        _ = world.turn(.miss(8, "a"), .miss(9, "b"))
        _ = world.turn(.reply(1, "+OK"), .reply(1, ":2"))
        #expect(
            world.turn(.reply(1, "-NOPERM"), .reply(1, "$1|v")) == [
                "arm 8: ttl -1 sent 1000 not kept", "fill 8: $1|v|",
            ])
    }

    @Test("Without tracking the time to live alone bounds what is kept")
    func withoutTracking() {
        let world = FlowWorld.connected(tracking: "-ERR Unknown CLIENT subcommand")
        #expect(
            world.turn(.miss(7, "a"), .miss(8, "b")) == [
                "send 1: PTTL a", "send 1: GET a", "send 1: PTTL b", "send 1: GET b",
            ])
        #expect(
            world.turn(.reply(1, ":9"), .reply(1, "$1|v")) == ["arm 7: ttl 9 sent 1000 if a value", "fill 7: $1|v|"])
        #expect(world.status.trackingReason == "ERR Unknown CLIENT subcommand")
    }

    @Test("An MGET goes as it came, behind its keys' times to live")
    func mget() {
        let world = FlowWorld.connected()
        #expect(
            world.turn(.mgetKey(7, "a"), .mget(7, "MGET", "a")) == [
                "send 1: CLIENT CACHING YES", "send 1: PTTL a", "send 1: MGET a",
            ])
        #expect(
            world.turn(.reply(1, "+OK"), .reply(1, ":5"), .reply(1, "*1|$1|v")) == [
                "arm 7: ttl 5 sent 1000", "fill 7: *1|$1|v|",
            ])
    }

    @Test("Orders keep the order of events")
    func order() {
        let world = FlowWorld.connected()
        #expect(
            world.turn(.miss(7, "a"), .write(3, "SET", "a", "1"), .miss(8, "a")) == [
                "send 1: CLIENT CACHING YES", "send 1: PTTL a", "send 1: GET a", "send 1: SET a 1",
                "send 1: CLIENT CACHING YES", "send 1: PTTL a", "send 1: GET a",
            ])
    }

    @Test("Pushes drop their keys; a null, or one that cannot be read, drops all")
    func pushes() {
        let world = FlowWorld.connected()
        #expect(world.turn(.push(1, ">2|$10|invalidate|*2|$1|a|$2|bb")) == ["drop a", "drop bb"])
        #expect(world.turn(.push(1, ">2|$10|invalidate|_")) == ["drop all"])
        #expect(world.turn(.push(1, ">2|$10|invalidate|*-1")) == ["drop all"])
        #expect(world.turn(.push(1, ">2|$10|invalidate|*2|$1|a|:3")) == ["drop a", "drop all"])
        #expect(world.turn(.push(1, ">3|$7|message|$1|a|$1|b")) == [])
    }

    @Test("A read is failed after read_timeout, and its late reply still fills")
    func timeout() {
        let world = FlowWorld.connected()
        _ = world.turn(.miss(7, "k"), .mget(8, "MGET", "a"))
        #expect(world.pass(ms: 49) == [])
        #expect(
            world.pass(ms: 1) == [
                "time out 7: -ERR upstream up:1 did not answer within 50 ms|",
                "time out 8: -ERR upstream up:1 did not answer within 50 ms|",
            ])
        #expect(
            world.turn(.reply(1, "+OK"), .reply(1, ":5"), .reply(1, "$1|v")) == [
                "arm 7: ttl 5 sent 1000", "fill 7: $1|v|",
            ])
        #expect(world.status.timeouts == 2)
    }

    @Test("While a reply is arriving read_timeout counts from its last part, for those behind it too")
    func arriving() {
        let world = FlowWorld.connected()
        _ = world.turn(.miss(7, "k"), .miss(8, "l"))
        #expect(world.pass(ms: 40) == [])
        world.orders.arrivingNs = world.nowMs * 1_000_000
        #expect(world.pass(ms: 49) == [])
        #expect(world.deadlineMs <= 1_090)
        world.orders.arrivingNs = world.nowMs * 1_000_000
        #expect(world.pass(ms: 49) == [])
        #expect(
            world.pass(ms: 1) == [
                "time out 7: -ERR upstream up:1 did not answer within 50 ms|",
                "time out 8: -ERR upstream up:1 did not answer within 50 ms|",
            ])
    }

    @Test("A reply that took long to arrive, and was not given up, shows the breaker that reads are answered")
    func arrived() {
        let world = FlowWorld.connected()
        for _ in 0..<Breaker.failuresMax { world.flow.breaker.failed(world.nowMs * 1_000_000) }
        world.flow.breaker.failed((world.nowMs + 300) * 1_000_000)
        #expect(world.status.breakerIsOpen)
        _ = world.pass(ms: 450)
        _ = world.turn(.miss(7, "k"))
        _ = world.pass(ms: 40)
        world.orders.arrivingNs = world.nowMs * 1_000_000
        #expect(world.pass(ms: 40) == [])
        _ = world.turn(.reply(1, "+OK"), .reply(1, ":5"), .reply(1, "$1|v"))
        #expect(!world.status.breakerIsOpen)
    }

    @Test("A loop that was not given the processor looks for replies before it calls them late")
    func starved() {
        let world = FlowWorld.connected()
        _ = world.turn(.miss(7, "k"))
        world.sleep(ms: 300)
        #expect(world.turn(.reply(1, "+OK")) == [])
        #expect(world.deadlineMs <= 1_300)
        #expect(world.turn(.reply(1, ":5"), .reply(1, "$1|v")) == ["arm 7: ttl 5 sent 1000", "fill 7: $1|v|"])
        #expect(world.status.timeouts == 0)
    }

    @Test("A long queue of timed and other replies has one next deadline")
    func deadlines() {
        let world = FlowWorld.connected()
        _ = world.turn(.read(1, "HGET", "h", "f"), .miss(2, "a"))
        _ = world.pass(ms: 20)
        _ = world.turn(.miss(3, "b"))
        #expect(world.deadlineMs == 1_050)
        _ = world.turn(.reply(1, "$1|x"), .reply(1, "+OK"), .reply(1, ":1"), .reply(1, "$1|v"))
        #expect(world.deadlineMs == 1_070)
    }

    @Test("The breaker that a silent link has opened is closed by the next link")
    func breakerOfAnotherLink() {
        let world = FlowWorld.connected()
        for round in 0..<UInt64(Breaker.failuresMax) {
            _ = world.turn(.miss(100 + round, "k"))
            _ = world.pass(ms: 60)
        }
        #expect(world.status.breakerIsOpen)
        #expect(world.turn(.miss(7, "k")).first?.contains("does not answer reads") ?? false)
        _ = world.turn(.down(1, 110))
        _ = world.pass(ms: 20)
        world.connect(link: 2)
        #expect(!world.status.breakerIsOpen)
        #expect(world.turn(.miss(8, "k")).first == "send 2: CLIENT CACHING YES")
    }
}
