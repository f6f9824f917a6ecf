import Testing

@testable import Sidecar

@Suite("The fence")
struct FencingTests {
    /// Client 9 is pinned to link 2, client 10 to link 3.
    private func fenced(tracking: String = "+OK", mode: SidecarConfig.Mode = .readThrough) -> FlowWorld {
        let world = FlowWorld.connected(
            FlowWorld.policy {
                $0.fence = true
                $0.mode = mode
            }, tracking: tracking)
        for (client, link) in [(9, 2), (10, 3)] as [(UInt64, UInt64)] {
            _ = world.turn(.pin(client: client))
            _ = world.turn(.up(link))
            _ = world.turn(.reply(link, "*0"), .reply(link, "$0|"), .reply(link, "+PONG"))
        }
        world.orders.hasFences = true
        return world
    }

    @Test("What comes by a pinned link waits for a PING sent behind it; one serves a whole turn")
    func pinned() {
        let world = fenced()
        _ = world.turn(.pinned(3, link: 2, "EXEC"), .pinned(4, link: 3, "BRPOP", "q", "0"))
        #expect(
            world.turn(.reply(2, "*1|+OK"), .reply(3, "*2|$1|q|$1|j"))
                == ["answer 3 behind 1: *1|+OK|", "answer 4 behind 1: *2|$1|q|$1|j|", "send 1: PING"])
        #expect(world.turn(.push(1, ">2|$10|invalidate|*1|$1|k"), .reply(1, "+PONG")) == ["drop k", "pass fence 1"])
        #expect(world.status.fences == 1)
        #expect(world.turn(.pinned(5, link: 2, "EXEC")) == ["send 2: EXEC"])
        #expect(world.turn(.reply(2, "*0")) == ["answer 5 behind 2: *0|", "send 1: PING"])
    }

    @Test(
        "Without tracking it waits where writes are queued, which must be known to be carried out; not without a link")
    func untrackedBehind() {
        let world = fenced(tracking: "-ERR no tracking", mode: .writeBehind)
        _ = world.turn(.pinned(3, link: 2, "INCR", "k"), .pinned(4, link: 2, "INCR", "k"))
        #expect(world.turn(.reply(2, ":1")) == ["answer 3 behind 1: :1|", "send 1: PING"])
        _ = world.turn(.down(1))
        #expect(world.turn(.reply(2, ":2")) == ["answer 4: :2|"])
    }

    @Test("Several PINGs may be out at once")
    func several() {
        let world = fenced()
        _ = world.turn(.pinned(3, link: 2, "EXEC"), .pinned(4, link: 3, "EXEC"))
        #expect(world.turn(.reply(2, "*0")) == ["answer 3 behind 1: *0|", "send 1: PING"])
        #expect(world.turn(.reply(3, "*0")) == ["answer 4 behind 2: *0|", "send 1: PING"])
        #expect(world.turn(.reply(1, "+PONG")) == ["pass fence 1"])
        #expect(world.turn(.reply(1, "+PONG")) == ["pass fence 2"])
    }

    @Test("Messages and every confirmation of a subscription wait too, in both protocols")
    func messages() {
        let world = fenced()
        _ = world.turn(.pinned(3, link: 2, "SUBSCRIBE", "a", "b"))
        #expect(
            world.turn(
                .reply(2, "*3|$9|subscribe|$1|a|:1"), .reply(2, "*3|$9|subscribe|$1|b|:2"),
                .reply(2, "*3|$7|message|$1|a|$1|m")) == [
                    "answer more 3 behind a fence: *3|$9|subscribe|$1|a|:1|",
                    "answer 3 behind 1: *3|$9|subscribe|$1|b|:2|", "tell 9 behind 1: *3|$7|message|$1|a|$1|m|",
                    "send 1: PING",
                ])
        #expect(
            world.turn(.push(3, ">3|$7|message|$1|a|$1|m"))
                == ["tell 10 behind 2: >3|$7|message|$1|a|$1|m|", "send 1: PING"])
    }

    @Test("So do replies of the shared RESP2 link")
    func separate() {
        let world = fenced()
        _ = world.turn(.script(3, "EVAL", "x"), .read(4, "ZRANGE", "z", onRESP2: true))
        _ = world.turn(.up(4))
        _ = world.turn(.reply(4, "*0"), .reply(4, "$0|"), .reply(4, "+PONG"))
        #expect(world.turn(.reply(4, "*0")) == ["answer 4 behind 2: *0|", "send 1: PING"])
    }

    @Test("A command of unknown keys on the tracked link has its PING right behind it")
    func script() {
        let world = fenced()
        #expect(
            world.turn(.script(3, "EVAL", "x"), .write(4, "DEL", "k"), .script(5, "FCALL", "f"))
                == ["send 1: EVAL x", "send 1: DEL k", "send 1: FCALL f", "send 1: PING"])
        #expect(
            world.turn(
                .reply(1, ":1"), .push(1, ">2|$10|invalidate|*1|$1|k"), .reply(1, ":2"), .reply(1, ":3"),
                .reply(1, "+PONG")) == [
                    "answer 3 resp3 behind 1: :1|", "drop k", "answer 4 resp3: :2|", "answer 5 resp3 behind 1: :3|",
                    "pass fence 1",
                ])
        /* A PING that was out already does not count. */
        _ = world.turn(.pinned(6, link: 2, "EXEC"))
        _ = world.turn(.reply(2, "*0"))
        _ = world.turn(.script(7, "EVAL", "x"))
        #expect(world.turn(.reply(1, "+PONG"), .reply(1, ":1")) == ["pass fence 2", "answer 7 resp3 behind 3: :1|"])
    }

    @Test("Without tracking, or with fence = false, nothing waits")
    func off() {
        let world = fenced(tracking: "-ERR unknown")
        _ = world.turn(.pinned(3, link: 2, "EXEC"))
        #expect(world.turn(.reply(2, "*0"), .push(3, ">2|$1|m|$1|m")) == ["answer 3: *0|", "tell 10: >2|$1|m|$1|m|"])
        #expect(world.turn(.script(4, "EVAL", "x")) == ["send 1: EVAL x"])
    }

    @Test("When the tracked link is lost nothing waits any longer, and what comes while there is none does not wait")
    func lost() {
        let world = fenced()
        _ = world.turn(.pinned(3, link: 2, "EXEC"), .pinned(4, link: 2, "EXEC"))
        _ = world.turn(.reply(2, "*0"))
        #expect(world.turn(.down(1)).prefix(3) == ["trust 1 not", "close flights", "pass all fences"])
        #expect(world.turn(.reply(2, "*1|:1")) == ["answer 4: *1|:1|"])
    }

    @Test("While the tracked link is silent nothing waits, but trust comes back only with the fence behind it")
    func silent() {
        let world = fenced()
        _ = world.turn(.pinned(3, link: 2, "EXEC"), .pinned(4, link: 2, "EXEC"), .pinned(5, link: 2, "EXEC"))
        #expect(world.turn(.reply(2, "*0")) == ["answer 3 behind 1: *0|", "send 1: PING"])
        /* The fence is a heartbeat too. */
        #expect(world.pass(ms: 400) == ["open 4: addr"])
        _ = world.turn(.up(4), .reply(4, FlowWorld.hello), .reply(4, "$0|"), .reply(4, "+PONG"))
        #expect(world.pass(ms: 100) == ["trust 1 not", "close flights", "pass all fences"])
        #expect(world.status.state == .suspended)
        /* Who has heard this must join no fetch that began before. */
        #expect(world.turn(.reply(2, "*1|:1")) == ["close flights", "answer 4: *1|:1|", "send 1: PING"])
        /* The first PONG says that it lives, but what the second reply knew may still be on its way. */
        #expect(world.turn(.reply(1, "+PONG")) == ["pass fence 1"])
        #expect(world.turn(.reply(2, "*1|:2")) == ["answer 5 behind 3: *1|:2|", "send 1: PING"])
        #expect(world.turn(.reply(1, "+PONG")) == ["pass fence 2", "trust 1"])
        #expect(world.turn(.reply(1, "+PONG")) == ["pass fence 3"])
    }

    @Test("A fence that is answered puts the heartbeat off")
    func heartbeat() {
        let world = fenced()
        let before = world.nowMs
        _ = world.turn(.pinned(3, link: 2, "EXEC"))
        _ = world.pass(ms: 400)
        #expect(world.turn(.reply(2, "*0")).last == "send 1: PING")
        _ = world.turn(.reply(1, "+PONG"))
        while world.orders.take().isEmpty, world.nowMs - before < 3_000 { if !world.pass(ms: 1).isEmpty { break } }
        #expect(world.nowMs - before >= 1_399)
    }
}
