import Testing

@testable import Sidecar

@Suite("The fleet's control key")
struct ControlKeyTests {
    private func world() -> FlowWorld {
        FlowWorld.connected(FlowWorld.policy { $0.controlKey = "ferrite:control" })
    }

    @Test("It is read with every new link, and again when it is announced; what it says is done")
    func bypassAndFlush() {
        let world = world()
        let changed = TestEvent.push(1, ">2|$10|invalidate|*1|$15|ferrite:control")
        let asked = ["drop ferrite:control", "send 1: CLIENT CACHING YES", "send 1: GET ferrite:control"]
        #expect(world.turn(.reply(1, "+OK"), .reply(1, "_")) == [])
        #expect(world.turn(changed) == asked)
        #expect(world.turn(.reply(1, "+OK"), .reply(1, "$6|bypass")) == ["bypass true"])
        #expect(world.status.isBypassed)
        #expect(world.turn(changed) == asked)
        #expect(world.turn(.reply(1, "+OK"), .reply(1, "$5|flush")) == ["bypass false", "drop all"])
        _ = world.turn(changed)
        #expect(world.turn(.reply(1, "+OK"), .reply(1, "$5|flush")) == ["drop all"])
        _ = world.turn(changed)
        #expect(world.turn(.reply(1, "+OK"), .reply(1, "-NOPERM no")) == [])
    }

    @Test("Left at flush it empties nothing at the start, nor when the link is made anew, unless it was something else")
    func leftAtFlush() {
        let world = world()
        let flush = TestEvent.reply(1, "$5|flush")
        #expect(world.turn(.reply(1, "+OK"), flush) == [])
        _ = world.turn(.push(1, ">2|$10|invalidate|*1|$15|ferrite:control"))
        #expect(world.turn(.reply(1, "+OK"), flush) == ["drop all"])

        func relink(_ link: LinkID, _ answer: String) -> [String] {
            world.turn(.down(link - 1))
            while !world.wantsAddresses { _ = world.pass(ms: 10) }
            world.connect(link: link)
            _ = world.orders.take()
            return world.turn(.reply(link, "+OK"), .reply(link, answer)).filter { $0 == "drop all" }
        }
        #expect(relink(2, "$5|flush") == [])
        #expect(relink(3, "_") == [])
        #expect(relink(4, "$5|flush") == ["drop all"])
        #expect(relink(5, "-LOADING Redis is loading") == [])
        #expect(relink(6, "$5|flush") == [])
    }

    /// So many seconds with a heartbeat that is answered, or until the key is asked for.
    private func beats(_ world: FlowWorld, _ seconds: Int) -> [String] {
        var sent: [String] = []
        for _ in 0..<seconds {
            let now = world.pass(ms: 1_000)
            if now.contains("send 1: PING") { _ = world.turn(.reply(1, "+PONG")) }
            sent += now
            if now.contains("send 1: GET ferrite:control") { break }
        }
        return sent
    }

    @Test("An error says nothing of it: a bypass stays, the log hears of it once, and it is asked again")
    func unreadable() {
        let world = world()
        let asked = ["send 1: CLIENT CACHING YES", "send 1: GET ferrite:control"]
        _ = world.turn(.reply(1, "+OK"), .reply(1, "$6|bypass"))
        _ = world.turn(.push(1, ">2|$10|invalidate|*1|$15|ferrite:control"))
        #expect(world.turn(.reply(1, "+OK"), .reply(1, "-NOPERM no such key for you")) == [])
        #expect(world.status.isBypassed)
        #expect(world.flow.notices.contains(.controlUnread(reason: "NOPERM no such key for you")))
        world.flow.notices = []
        var sent = beats(world, 9)
        #expect(sent.filter(asked.contains) == [])
        sent = beats(world, 2)
        #expect(sent.filter(asked.contains) == asked)
        #expect(world.turn(.reply(1, "+OK"), .reply(1, "-NOPERM no such key for you")) == [])
        #expect(!world.flow.notices.contains(.controlUnread(reason: "NOPERM no such key for you")))
        _ = beats(world, 11)
        #expect(world.turn(.reply(1, "+OK"), .reply(1, "$5|flush")) == ["bypass false", "drop all"])
    }

    @Test("Where nothing tells of its end the fleet's bypass does not stay")
    func untracked() {
        let world = world()
        _ = world.turn(.reply(1, "+OK"), .reply(1, "$6|bypass"))
        _ = world.turn(.down(1))
        while !world.wantsAddresses { _ = world.pass(ms: 10) }
        #expect(world.status.isBypassed)
        world.connect(link: 2, tracking: "-ERR unknown subcommand")
        #expect(!world.status.isBypassed)
    }

    @Test("A bypass by hand outlasts the fleet's")
    func byHand() {
        let world = world()
        _ = world.turn(.reply(1, "+OK"), .reply(1, "$6|bypass"))
        world.flow.setBypass(byHand: true)
        _ = world.turn(.push(1, ">2|$10|invalidate|*1|$15|ferrite:control"))
        _ = world.turn(.reply(1, "+OK"), .reply(1, "_"))
        #expect(world.status.isBypassed)
        world.flow.setBypass(byHand: false)
        #expect(!world.status.isBypassed)
    }
}
