import Testing

@testable import Sidecar

@Suite("The tracked link's life")
struct UpstreamLifeTests {
    @Test("At start clients are held until the handshake has answered; the epoch begins before anything is fetched")
    func start() {
        let world = FlowWorld()
        #expect(world.orders.take() == ["joinable 50", "rule *: ttl 300000", "hold"])
        #expect(world.status.state == .connecting)
        world.resolve()
        #expect(world.orders.take() == ["open 1: addr"])
        #expect(
            world.turn(.up(1)) == [
                "send 1: HELLO 3 SETNAME ferrite-sidecar", "send 1: CLIENT TRACKING ON OPTIN", "send 1: INFO server",
                "send 1: PING",
            ])
        #expect(world.turn(.reply(1, FlowWorld.hello), .reply(1, "+OK"), .reply(1, "$10|run_id:abc")) == [])
        #expect(world.turn(.reply(1, "+PONG")) == ["trust 1", "send 1: COMMAND", "release"])
        #expect(world.turn(.reply(1, "*0")) == ["learn *0|"])
        #expect(world.status.state == .up)
        #expect(world.status.tracking)
    }

    @Test("A fetch takes readers for as long as the shorter of read_timeout and the time of trust")
    func joinable() {
        let long = FlowWorld(FlowWorld.policy { $0.readTimeoutMs = 3_000 })
        #expect(long.orders.take()[0] == "joinable 1500")
        let brief = FlowWorld(FlowWorld.policy { $0.readTimeoutMs = 20 })
        #expect(brief.orders.take()[0] == "joinable 20")
    }

    @Test("The rules are told in their order, and last what holds for all other keys")
    func rules() {
        let world = FlowWorld(
            FlowWorld.policy {
                var user = KeyRule(pattern: "user:*")
                user.ttlMs = 1_000
                $0.rules = [user]
            })
        #expect(world.orders.take()[1...2] == ["rule user:*: ttl 1000", "rule *: ttl 300000"])
    }

    @Test("A numeric upstream needs no resolver")
    func numeric() {
        let world = FlowWorld(FlowWorld.policy { $0.upstream = UpstreamAddress(host: "127.0.0.1", port: 7) })
        #expect(!world.wantsAddresses)
        #expect(world.orders.take().contains { $0.hasPrefix("open 1: ") })
    }

    @Test("Each address of the name is tried before the attempt fails")
    func addresses() {
        let world = FlowWorld()
        world.resolve(.addresses([Array("six".utf8), Array("four".utf8)]))
        #expect(world.orders.take().last == "open 1: six")
        #expect(world.turn(.down(1, 111)) == ["open 2: four"])
        #expect(world.turn(.down(2, 111)) == ["trust 0 not, serve suspect", "release"])
        #expect(world.status.state == .unreachable)
        #expect(world.status.lastError == "connect: Connection refused")
    }

    @Test("An address to which no connection can even begin is passed over")
    func noWay() {
        let world = FlowWorld()
        world.orders.linksLeft = 0
        world.resolve(.addresses([Array("six".utf8), Array("four".utf8)]))
        #expect(world.status.lastError == "connect: the system has no socket for it, or local_memory no room")
    }

    @Test("An address that takes the connection and closes it, or says nothing, is passed over")
    func closing() {
        let world = FlowWorld()
        world.resolve(.addresses([Array("six".utf8), Array("four".utf8), Array("two".utf8)]))
        _ = world.turn(.up(1))
        #expect(world.turn(.down(1)) == ["open 2: four"])
        _ = world.turn(.up(2))
        var ordered: [String] = []
        while !ordered.contains("open 3: two"), world.nowMs < 3_000 { ordered += world.pass(ms: 1) }
        #expect(ordered.contains("close link 2"))
    }

    @Test("A resolver that does not answer holds nobody up where an address is known, and proves nothing")
    func slowResolver() {
        let world = FlowWorld.connected()
        _ = world.pass(ms: 1_000)
        _ = world.turn(.reply(1, "+PONG"), .down(1))
        #expect(world.pass(ms: 99) == ["release"])
        #expect(world.pass(ms: 1) == ["open 2: addr"])
        #expect(world.turn(.down(2, 111)) == ["trust 1 not, serve suspect"])
        #expect(world.wantsAddresses)
        world.flow.wantsAddresses = false
        while !world.pass(ms: 1).contains("open 3: addr") {}
        #expect(!world.wantsAddresses) /* It has not answered the first time. */
        world.flow.resolved(.addresses([Array("moved".utf8)]), nowNs: world.nowMs * 1_000_000)
        _ = world.turn(.down(3, 111))
        while !world.wantsAddresses { _ = world.pass(ms: 1) }
        world.resolve(.failed("gone again"))
        #expect(world.orders.take().contains("open 4: moved"))
    }

    @Test("While a client's link lives, nobody counts as gone whose new connections are turned away, but who is busy")
    func otherLink() {
        let world = FlowWorld.connected()
        _ = world.turn(.pin(client: 9))
        _ = world.turn(.up(2), .reply(2, "*0"), .reply(2, "$0|"), .reply(2, "+PONG"))
        _ = world.pass(ms: 1_400)
        #expect(world.turn(.down(3, 104)) == []) /* the probe */
        #expect(world.pass(ms: 100) == ["trust 1 not", "open 4: addr"])
        #expect(world.turn(.down(4, 104)) == [])
        #expect(world.status.state == .suspended)
        _ = world.turn(.down(1))
        world.resolve()
        _ = world.orders.take()
        #expect(world.turn(.down(5, 111)) == ["release"])
        while !world.wantsAddresses { _ = world.pass(ms: 1) }
        world.resolve()
        let busy = TestEvent.reply(6, "-BUSY Redis is busy running a script")
        #expect(world.turn(.up(6), .reply(6, FlowWorld.hello), busy, busy, busy).contains("trust 1 not, serve suspect"))
    }

    @Test("Attempts follow each other with a growing pause, and the name is resolved each time")
    func backoff() {
        let world = FlowWorld()
        var pauses: [UInt64] = []
        for _ in 0..<9 {
            world.resolve(.failed("no such name"))
            let before = world.nowMs
            while !world.wantsAddresses { _ = world.pass(ms: 1) }
            pauses.append(world.nowMs - before)
        }
        for (pause, wanted) in zip(pauses, [10, 20, 40, 80, 160, 320, 640, 1_000, 1_000] as [UInt64]) {
            #expect(pause >= wanted * 8 / 10 && pause <= wanted * 12 / 10 + 1)
        }
    }

    @Test("When only the resolver fails, the last addresses are tried")
    func resolverFails() {
        let world = FlowWorld.connected()
        _ = world.pass(ms: 1_000)
        _ = world.turn(.reply(1, "+PONG"), .down(1))
        world.resolve(.failed("try again"))
        #expect(world.orders.take() == ["open 2: addr"])
    }

    @Test("A connection that does not come about is given up after connect_timeout")
    func connectTimeout() {
        let world = FlowWorld()
        world.resolve()
        _ = world.orders.take()
        #expect(world.pass(ms: 100).prefix(2) == ["close link 1", "trust 0 not, serve suspect"])
        #expect(world.status.lastError == "connect: no answer within 100 ms")
    }

    @Test("Refused credentials are named and tried again; a server that loads is asked again soon")
    func refusals() {
        let world = FlowWorld()
        world.resolve()
        _ = world.turn(.up(1))
        _ = world.turn(.reply(1, "-WRONGPASS invalid username-password pair"))
        #expect(world.status.lastError == "WRONGPASS invalid username-password pair")
        #expect(
            world.turn(.write(3, "DEL", "k")) == [
                "answer 3: -ERR upstream up:1 refuses the sidecar: WRONGPASS invalid username-password pair|"
            ])
        while !world.wantsAddresses { _ = world.pass(ms: 1) }
        world.resolve()
        _ = world.turn(
            .up(2), .reply(2, FlowWorld.hello), .reply(2, "+OK"), .reply(2, "$0|"),
            .reply(2, "-LOADING Redis is loading the dataset in memory"))
        let before = world.nowMs
        while !world.wantsAddresses { _ = world.pass(ms: 1) }
        #expect(world.nowMs - before == 50)
        /* Its bytes are no sign that it can serve. */
        #expect(world.status.state == .unreachable)
        /* In its own words, which client libraries know. */
        #expect(
            world.turn(.write(4, "DEL", "k")) == ["answer 4: -LOADING Redis is loading the dataset in memory|"])
    }

    @Test("While the upstream runs a script a client gets a link of its own, to kill it")
    func busy() {
        let world = FlowWorld()
        world.resolve()
        let script = "-BUSY Redis is busy running a script"
        let busy = TestEvent.reply(1, script)
        _ = world.turn(.up(1), .reply(1, FlowWorld.hello), busy, busy, busy)
        #expect(world.turn(.pin(client: 7)).first == "open 2: addr")
        #expect(
            world.turn(.up(2), .reply(2, "*0"), .reply(2, script), .reply(2, script)).last == "pin 7 to 2")
    }

    @Test("Clients that were turned away are told of in the log, once")
    func turnedAway() {
        let world = FlowWorld.connected()
        world.orders.refused = 3
        _ = world.pass(ms: 11_000)
        let lines = world.flow.notices.filter { if case .turnedAway = $0 { true } else { false } }
        #expect(lines == [.turnedAway(TurnedAway(refused: 3, closed: 0))])
    }

    @Test("A heartbeat every second; a late one suspends the epoch, and a new connection is tried before that")
    func suspended() {
        let world = FlowWorld.connected()
        #expect(world.pass(ms: 1_000) == ["send 1: PING"])
        #expect(world.pass(ms: 399) == [])
        #expect(world.pass(ms: 1) == ["open 2: addr"])
        #expect(world.turn(.down(2, 111)) == [])
        #expect(world.pass(ms: 100) == ["trust 1 not", "open 3: addr"])
        #expect(world.status.state == .suspended)
        #expect(world.turn(.reply(1, "+PONG")) == ["close link 3", "trust 1"])
        #expect(world.status.roundTripNs == 500_000_000)
        #expect(world.pass(ms: 500) == ["send 1: PING"])
    }

    @Test("The engine is told how long it may trust: 1.5 s from when the last answered PING was sent")
    func trustedUntil() {
        let world = FlowWorld.connected()
        #expect(world.orders.trustedUntilMs == world.nowMs + 1_500)
        #expect(world.pass(ms: 1_000) == ["send 1: PING"])
        let sentMs = world.nowMs
        _ = world.pass(ms: 300)
        #expect(world.turn(.reply(1, "+PONG")) == [])
        #expect(world.orders.trustedUntilMs == sentMs + 1_500)
    }

    @Test("A node that is silent and answers no new connection is unreachable: suspect entries are served")
    func unreachable() {
        let world = FlowWorld.connected()
        #expect(world.pass(ms: 1_400) == ["send 1: PING", "open 2: addr"])
        #expect(
            world.turn(.up(2)) == ["send 2: HELLO 3 SETNAME ferrite-sidecar", "send 2: INFO server", "send 2: PING"])
        #expect(world.pass(ms: 99) == [])
        /* Cached data is served from the moment at which it is doubted. */
        #expect(world.pass(ms: 1) == ["trust 1 not", "close link 2", "trust 1 not, serve suspect"])
        #expect(world.status.state == .unreachable)
        #expect(
            world.turn(.miss(7, "k"))[0].hasPrefix("fail 7: -ERR upstream up:1 is unreachable: it has fallen silent"))
        /* One byte, and it is there again, though its heartbeat is still owed. */
        #expect(world.turn(.push(1, ">2|$10|invalidate|*1|$1|k")) == ["trust 1 not", "drop k"])
        #expect(world.turn(.reply(1, "+PONG")) == ["trust 1"])
    }

    @Test("Who asks between the end of trust and that proof waits for it, whatever the breaker says, and no longer")
    func askedMeanwhile() {
        let world = FlowWorld.connected()
        for _ in 0..<Breaker.failuresMax { world.flow.breaker.failed(world.nowMs * 1_000_000) }
        world.flow.breaker.failed((world.nowMs + 300) * 1_000_000)
        #expect(world.flow.breaker.isOpen)
        /* The PING is a little late, and its PONG is missed only when the engine has ended its trust. */
        world.sleep(ms: 1_020)
        #expect(world.turn() + world.turn() == ["send 1: PING"])
        #expect(world.pass(ms: 400) == ["open 2: addr"])
        _ = world.turn(.up(2))
        #expect(world.turn(.miss(5, "k"), .miss(6, "k")).contains { $0.hasPrefix("fail 6: -ERR") })
        world.sleep(ms: 85)
        #expect(world.turn(.miss(7, "k")).contains("send 1: GET k"))
        #expect(world.turn(.miss(8, "k")).contains("send 1: GET k"))
        #expect(world.turn(.mgetKey(9, "k"), .mget(9, "MGET", "k")).last == "send 1: MGET k")
        let known = world.pass(ms: 15)
        let served = known.firstIndex(of: "trust 1 not, serve suspect")
        let answered = known.firstIndex { $0.hasPrefix("time out 7: -ERR upstream up:1 is unreachable") }
        #expect((served ?? .max) < (answered ?? 0), "\(known)")
        #expect(known.contains { $0.hasPrefix("time out 8") } && known.contains { $0.hasPrefix("time out 9") })
    }

    @Test("A probe that is answered shows that the node lives; the next one waits")
    func probeAnswered() {
        let world = FlowWorld.connected()
        _ = world.pass(ms: 1_400)
        _ = world.turn(.up(2))
        #expect(world.turn(.reply(2, FlowWorld.hello), .reply(2, "$0|"), .reply(2, "+PONG")) == ["close link 2"])
        #expect(world.pass(ms: 100) == ["trust 1 not"])
        #expect(world.status.state == .suspended)
        #expect(world.pass(ms: 399) == [])
        #expect(world.pass(ms: 1) == ["open 3: addr"])
    }

    @Test("A probe's silence counts when all has been silent for long enough, and not at all when something was heard")
    func probeWaits() {
        let world = FlowWorld.connected()
        _ = world.pass(ms: 1_000)
        _ = world.turn(.pin(client: 9))
        _ = world.turn(.up(2), .reply(2, "*0"), .reply(2, "$0|"), .reply(2, "+PONG"))
        _ = world.turn(.pinned(3, link: 2, "EXEC"))
        _ = world.pass(ms: 100)
        _ = world.turn(.reply(2, "*0"))
        #expect(world.pass(ms: 400) == ["open 3: addr", "trust 1 not"])
        #expect(world.pass(ms: 99) == [])
        #expect(world.pass(ms: 1) == ["close link 3", "trust 1 not, serve suspect"])
        _ = world.turn(.pinned(3, link: 2, "EXEC"), .pinned(4, link: 2, "EXEC"))
        _ = world.turn(.reply(2, "*0"))
        #expect(world.status.state == .suspended)
        #expect(world.pass(ms: 501) == ["open 4: addr"])
        _ = world.turn(.reply(2, "*0"))
        #expect(world.pass(ms: 99) == ["close link 4"])
        #expect(world.status.state == .suspended)
    }

    @Test("A probe that cannot count any more makes room for one that can, though its own time is not over")
    func probeMakesRoom() {
        let world = FlowWorld.connected(FlowWorld.policy { $0.connectTimeoutMs = 1_000 })
        _ = world.pass(ms: 1_000)
        _ = world.turn(.pin(client: 9))
        _ = world.turn(.up(2), .reply(2, "*0"), .reply(2, "$0|"), .reply(2, "+PONG"))
        _ = world.turn(.pinned(3, link: 2, "EXEC"))
        #expect(world.pass(ms: 250) == ["open 3: addr"])
        _ = world.pass(ms: 50)
        _ = world.turn(.reply(2, "*0"))
        #expect(world.pass(ms: 200) == ["trust 1 not"])
        #expect(world.pass(ms: 299) == [])
        #expect(world.pass(ms: 1) == ["close link 3", "open 4: addr"])
        #expect(world.pass(ms: 1_000) == ["close link 4", "trust 1 not, serve suspect"])
    }

    @Test("After link_timeout without an answer the link is closed and made again")
    func linkTimeout() {
        let world = FlowWorld.connected()
        _ = world.pass(ms: 1_000)
        let ordered = world.pass(ms: 5_000)
        #expect(ordered.contains("abort link 1"))
        #expect(world.status.lastError == "no answer for 5000 ms")
        #expect(world.wantsAddresses)
    }

    @Test("After a loss clients wait for read_timeout at most; being turned away proves that nobody is there")
    func loss() {
        let world = FlowWorld.connected()
        _ = world.pass(ms: 1_000)
        _ = world.turn(.reply(1, "+PONG"))
        #expect(world.turn(.down(1)) == ["trust 1 not", "hold"])
        world.resolve()
        _ = world.orders.take()
        #expect(world.turn(.down(2, 111)) == ["trust 1 not, serve suspect", "release"])
    }

    @Test("Silence proves nothing until it has lasted: suspect entries are served 500 ms after the last word")
    func silenceAfterLoss() {
        let world = FlowWorld.connected()
        _ = world.pass(ms: 1_000)
        _ = world.turn(.reply(1, "+PONG"), .down(1))
        world.resolve()
        #expect(world.pass(ms: 50).suffix(1) == ["release"])
        var ordered: [String] = []
        while !ordered.contains("trust 1 not, serve suspect"), world.nowMs < 5_000 {
            ordered += world.pass(ms: 1)
            world.resolve()
        }
        #expect((2_500...2_800).contains(world.nowMs))
    }

    @Test("What cannot be sent is refused before it drops anything; while clients are held, nothing is")
    func refusal() {
        let world = FlowWorld.connected()
        _ = world.pass(ms: 1_000)
        _ = world.turn(.reply(1, "+PONG"), .down(1))
        #expect(world.orders.refusal == "")
        world.resolve()
        _ = world.turn(.down(2, 111))
        #expect(world.orders.refusal == "-ERR upstream up:1 is unreachable: connect: Connection refused|")
        while !world.wantsAddresses { _ = world.pass(ms: 1) }
        world.connect(link: 3)
        #expect(world.orders.refusal == "")
    }

    @Test("A new link begins a new epoch, and learns the commands of a new server only")
    func newEpoch() {
        let world = FlowWorld.connected()
        _ = world.pass(ms: 1_000)
        _ = world.turn(.reply(1, "+PONG"), .down(1))
        world.connect(link: 2)
        #expect(world.status.epoch == 2)
        #expect(world.status.reconnects == 1)
        #expect(!world.orders.take().contains("send 2: COMMAND"))
        _ = world.pass(ms: 1_000)
        _ = world.turn(.reply(2, "+PONG"), .down(2))
        world.resolve()
        _ = world.turn(.up(3), .reply(3, FlowWorld.hello), .reply(3, "+OK"), .reply(3, "$12|run_id:other"))
        #expect(world.turn(.reply(3, "+PONG")) == ["trust 3", "send 3: COMMAND", "release"])
    }

    @Test("A link that does not hold is not made again in a tight circle")
    func flapping() {
        let world = FlowWorld.connected()
        _ = world.turn(.down(1))
        #expect(!world.wantsAddresses)
        _ = world.pass(ms: 13)
        #expect(world.wantsAddresses)
    }

    @Test("A drain ends when no client is left, or when its time is out")
    func drain() {
        let world = FlowWorld.connected()
        world.flow.beginDrain(world.nowMs * 1_000_000)
        _ = world.pass(ms: 100)
        #expect(!world.isFinished)
        world.orders.clients = 0
        _ = world.pass(ms: 20)
        #expect(world.isFinished)
        let stubborn = FlowWorld.connected()
        stubborn.flow.beginDrain(stubborn.nowMs * 1_000_000)
        _ = stubborn.pass(ms: 4_999)
        #expect(!stubborn.isFinished)
        _ = stubborn.pass(ms: 1)
        #expect(stubborn.isFinished)
    }
}
