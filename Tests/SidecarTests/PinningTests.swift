import Testing

@testable import Sidecar

@Suite("Links of single clients")
struct PinningTests {
    /// A world in which client 9 is pinned to link 2.
    private func pinned(resp3: Bool = false, _ policy: FlowPolicy = FlowWorld.policy()) -> FlowWorld {
        let world = FlowWorld.connected(policy)
        _ = world.turn(.pin(client: 9, resp3: resp3))
        _ = world.turn(.up(2))
        _ = world.turn(.reply(2, resp3 ? FlowWorld.hello : "*0"), .reply(2, "$0|"), .reply(2, "+PONG"))
        return world
    }

    /// Clients 9 and 10, numbers 7001 and 7002, on links 2 and 3, which the upstream calls 51 and 52.
    private func named() -> FlowWorld {
        let world = FlowWorld.connected()
        _ = world.turn(.pin(client: 9, number: 7_001), .pin(client: 10, number: 7_002))
        _ = world.turn(.up(2), .up(3), .reply(2, "*2|$2|id|:51"), .reply(3, "*2|$2|id|:52"))
        _ = world.turn(.reply(2, "$0|"), .reply(3, "$0|"), .reply(2, "+PONG"), .reply(3, "+PONG"))
        return world
    }

    @Test("A client gets a link in its own protocol, under its own name")
    func open() {
        let world = FlowWorld.connected()
        #expect(world.turn(.pin(client: 9, resp3: true, name: "worker")) == ["open 2: addr"])
        #expect(world.turn(.up(2)) == ["send 2: HELLO 3 SETNAME worker", "send 2: INFO server", "send 2: PING"])
        #expect(world.turn(.reply(2, FlowWorld.hello), .reply(2, "$0|"), .reply(2, "+PONG")) == ["pin 9 to 2"])
        #expect(world.turn(.pinned(3, link: 2, "BLPOP", "q", "0")) == ["send 2: BLPOP q 0"])
        #expect(world.turn(.reply(2, "_")) == ["answer 3: _|"])
    }

    @Test("A link to another server than the tracked one carries nothing: the tracked link is made anew")
    func moved() {
        let world = FlowWorld.connected()
        _ = world.turn(.pin(client: 9), .up(2), .reply(2, "*0"), .reply(2, "$12|run_id:other"))
        let orders = world.turn(.reply(2, "+PONG"))
        #expect(orders.contains("abort link 1") && orders.contains("close link 2"))
        #expect(!orders.contains("pin 9 to 2") && orders.contains { $0.hasPrefix("fail pin 9: -ERR upstream up:1 is") })
        #expect(world.pinCount == 0)
    }

    @Test("A link that was made while there was no tracked one is looked at when there is")
    func movedMeanwhile() {
        let world = FlowWorld.connected()
        _ = world.pass(ms: 1_000)
        _ = world.turn(.reply(1, "+PONG"), .pin(client: 9), .pin(client: 10), .up(2), .up(3))
        _ = world.turn(.reply(2, "*0"), .reply(3, "*0"), .reply(2, "$12|run_id:other"), .reply(3, "$0|"), .down(1))
        #expect(world.turn(.reply(2, "+PONG"), .reply(3, "+PONG")) == ["pin 9 to 2", "pin 10 to 3"])
        world.connect(link: 4)
        #expect(world.pinCount == 1)
    }

    @Test("Ids of clients are ours for clients, and the upstream's for the upstream")
    func identities() {
        let world = named()
        #expect(
            world.turn(.pinned(3, link: 2, "CLIENT|ID"), .reply(2, ":51")) == ["send 2: CLIENT|ID", "answer 3: :7001|"])
        #expect(
            world.turn(.pinned(4, link: 2, "CLIENT|UNBLOCK", "7002"), .pinned(5, link: 2, "CLIENT|UNBLOCK", "7003"))
                == ["send 2: CLIENT|UNBLOCK 52", "send 2: CLIENT|UNBLOCK 7003"])
        _ = world.turn(.reply(2, ":1"), .reply(2, ":0"))
        #expect(world.turn(.pinned(6, link: 2, "CLIENT|ID"), .reply(2, "+QUEUED")).last == "answer 6: +QUEUED|")
    }

    @Test("INFO has our section on a pinned link too, but not in place of an error or QUEUED")
    func information() {
        let world = pinned()
        #expect(world.turn(.pinned(3, link: 2, "INFO")) == ["send 2: INFO"])
        let told = world.turn(.reply(2, "$8|# Server")).joined()
        #expect(told.hasPrefix("answer 3: $") && told.contains("|# Server|# Sidecar|"))
        _ = world.turn(.pinned(4, link: 2, "INFO", "memory"), .pinned(5, link: 2, "INFO"))
        #expect(
            world.turn(.reply(2, "$8|# Memory"), .reply(2, "+QUEUED"))
                == ["answer 4: $8|# Memory|", "answer 5: +QUEUED|"])
    }

    @Test("If the link cannot be had, the command gets an error")
    func refused() {
        let world = FlowWorld.connected()
        _ = world.turn(.pin(client: 9))
        #expect(
            world.turn(.down(2, 111)) == ["fail pin 9: -ERR upstream up:1 is unreachable: Connection refused|"])
        world.orders.linksLeft = 0
        #expect(world.turn(.pin(client: 9)) == ["fail pin 9: -ERR max number of upstream connections reached|"])
        world.orders.linksLeft = 9
        _ = world.turn(.pin(client: 9, resp3: true))
        _ = world.turn(.up(3))
        #expect(
            world.turn(.reply(3, "-NOPROTO unsupported protocol version"), .reply(3, "$0|"), .reply(3, "+PONG")) == [
                "close link 3",
                "fail pin 9: -ERR upstream up:1 is unreachable: NOPROTO unsupported protocol version|",
            ])
        _ = world.turn(.pin(client: 9))
        #expect(
            world.pass(ms: 600) == [
                "close link 4",
                "fail pin 9: -ERR upstream up:1 is unreachable: a connection for this client was not ready in time|",
            ])
        #expect(world.pinCount == 0)
    }

    @Test("A pin that is asked for while the upstream is being connected waits for it")
    func waiting() {
        let world = FlowWorld()
        _ = world.orders.take()
        #expect(world.turn(.pin(client: 9)) == [])
        world.resolve()
        _ = world.turn(.up(1), .reply(1, FlowWorld.hello), .reply(1, "+OK"), .reply(1, "$0|"))
        #expect(world.turn(.reply(1, "+PONG")).suffix(2) == ["open 2: addr", "release"])
        let late = FlowWorld()
        _ = late.turn(.pin(client: 9))
        late.resolve(.failed("nope"))
        #expect(late.orders.take().contains("fail pin 9: -ERR upstream up:1 is unreachable: resolve: nope|"))
    }

    @Test("A client that leaves takes its link along, in the middle of a blocking call too")
    func gone() {
        let world = pinned()
        let charged = world.orders.charged
        _ = world.turn(.pinned(3, link: 2, "BLPOP", "q", "0"))
        #expect(world.turn(.gone(client: 9, link: 2)) == ["close link 2"])
        #expect(world.orders.charged < charged)
        _ = world.turn(.pin(client: 10))
        #expect(world.turn(.gone(client: 10)) == ["close link 3"])
        #expect(world.turn(.gone(client: 11)) == [])
        #expect(world.pinCount == 0)
    }

    @Test("A client that ends its side has its link's side ended; the upstream closes, or link_timeout does")
    func end() {
        let world = pinned()
        #expect(
            world.turn(.pinned(3, link: 2, "EXEC"), .ended(client: 9, link: 2)) == ["send 2: EXEC", "finish link 2"])
        #expect(world.turn(.reply(2, "*0"), .down(2)) == ["answer 3: *0|", "lose the pin of 9"])
        #expect(world.pinCount == 0)
        let hung = pinned()
        _ = hung.turn(.pinned(3, link: 2, "BLPOP", "q", "0"), .ended(client: 9, link: 2))
        #expect(hung.turn(.ended(client: 9, link: 7)) == [])
        #expect(hung.pass(ms: 999).isEmpty)
        var ordered: [String] = []
        for _ in 0..<5 {
            ordered += hung.pass(ms: 1_000)
            ordered += hung.turn(.reply(1, "+PONG"))
        }
        #expect(ordered.contains("close link 2") && ordered.contains("close client 9") && hung.pinCount == 0)
    }

    @Test("Where our credentials are refused a client may bring its own, on a link without ours")
    func strangers() {
        let world = FlowWorld(
            FlowWorld.policy {
                $0.username = "us"
                $0.password = Secret("wrong")
            })
        world.resolve()
        _ = world.turn(.up(1), .reply(1, "-WRONGPASS invalid username-password pair"))
        #expect(world.turn(.pin(client: 9)).first == "open 2: addr")
        #expect(world.turn(.up(2)) == ["send 2: HELLO 2", "send 2: INFO server", "send 2: PING"])
        #expect(
            world.turn(.reply(2, "-NOAUTH HELLO must"), .reply(2, "-NOAUTH"), .reply(2, "-NOAUTH"))
                == ["pin 9 to 2"])
    }

    @Test("A lost link closes its client, as a dying Redis would")
    func lost() {
        let world = pinned()
        #expect(world.turn(.down(2)) == ["close client 9"])
        #expect(world.turn(.pinned(3, link: 2, "GET", "a")) == ["close slot 3"])
    }

    /// Commands and their replies; of RESP3 where HELLO says so. Whether the client needs its link no more behind them.
    static let lives: [(resp3: Bool, steps: [(String, String)], isGivenBack: Bool)] = [
        (false, [("BLPOP q 1", "*-1")], true),
        (false, [("GET k", "$1|v")], true),
        (false, [("MULTI", "+OK")], false),
        (false, [("MULTI", "+OK"), ("GET k", "+QUEUED")], false),
        (false, [("MULTI", "+OK"), ("GET k", "+QUEUED"), ("EXEC", "*1|$1|v")], true),
        (false, [("MULTI", "+OK"), ("DISCARD", "+OK")], true),
        (false, [("MULTI", "+OK"), ("SET k", "-ERR wrong"), ("EXEC", "-EXECABORT Transaction discarded")], true),
        (false, [("WATCH k", "+OK")], false),
        (false, [("WATCH k", "+OK"), ("GET k", "$1|v")], false),
        (false, [("WATCH k", "+OK"), ("UNWATCH", "+OK")], true),
        (false, [("WATCH k", "+OK"), ("MULTI", "+OK"), ("EXEC", "*-1")], true),
        (false, [("WATCH k", "+OK"), ("EXEC", "-ERR EXEC without MULTI")], false),
        (false, [("WATCH k", "+OK"), ("MULTI", "+OK"), ("UNWATCH", "+QUEUED")], false),
        (false, [("WATCH k", "+OK"), ("RESET", "+RESET")], true),
        (false, [("SELECT 1", "+OK")], false),
        (false, [("SELECT 1", "-ERR DB index is out of range")], true),
        (false, [("SELECT 1", "+OK"), ("SELECT 0", "+OK")], true),
        (false, [("SELECT 1", "+OK"), ("SELECT 0", "-ERR")], false),
        (false, [("SELECT 1", "+OK"), ("SELECT 00", "+OK")], false),
        (false, [("MULTI", "+OK"), ("SELECT 1", "+QUEUED"), ("EXEC", "*1|+OK")], false),
        (false, [("SELECT 1", "+OK"), ("MULTI", "+OK"), ("SELECT 0", "+QUEUED"), ("EXEC", "*1|+OK")], false),
        (false, [("SUBSCRIBE c", "*3|$9|subscribe|$1|c|:1")], false),
        (false, [("SUBSCRIBE c", "*3|$9|subscribe|$1|c|:1"), ("UNSUBSCRIBE c", "*3|$11|unsubscribe|$1|c|:0")], true),
        (true, [("PSUBSCRIBE c", ">3|$10|psubscribe|$1|c|:1")], false),
        (true, [("PSUBSCRIBE c", ">3|$10|psubscribe|$1|c|:1"), ("PUNSUBSCRIBE", ">3|$12|punsubscribe|$1|c|:0")], true),
        (false, [("MULTI", "+OK"), ("SUBSCRIBE c", "+QUEUED"), ("EXEC", "*1|*3|$9|subscribe|$1|c|:1")], false),
        (false, [("MONITOR", "+OK")], false),
        (false, [("CLIENT|REPLY ON", "+OK")], true),
        (false, [("CLIENT|TRACKING ON", "+OK")], false),
        (false, [("CLIENT|TRACKING ON", "+OK"), ("CLIENT|TRACKING OFF", "+OK")], false),
        (false, [("CLIENT|TRACKING ON", "+OK"), ("RESET", "+RESET")], true),
        (false, [("AUTH other pass", "+OK")], false),
        (false, [("AUTH other pass", "-WRONGPASS no")], true),
        (false, [("HELLO 2", "*0")], false),
        (false, [("CLIENT|SETNAME x", "+OK")], false),
        (false, [("READONLY", "+OK")], false),
        (false, [("NOSUCH", "-ERR unknown command")], true),
        (false, [("HELLO 3 BAD", "-ERR Syntax error in HELLO option 'BAD'")], false),
        (false, [("WATCH k", "+OK"), ("RESET", "-ERR unknown command"), ("UNWATCH", "+OK")], false),
        (false, [("MULTI", "+OK"), ("RESET", "-ERR unknown command")], false),
        (false, [("MULTI", "+OK"), ("DISCARD", "-NOPERM no")], false),
        (
            false,
            [("MULTI", "+OK"), ("MULTI", "-ERR Command not allowed inside a transaction"), ("GET k", "+QUEUED")], false
        ),
        (false, [("MULTI", "+OK"), ("GET k", "+QUEUED"), ("DISCARD x", "-ERR wrong number")], false),
        (false, [("MULTI", "+OK"), ("EXEC x", "-EXECABORT Transaction discarded because of: wrong number")], true),
        (false, [("WAIT 0 1", ":0")], false),
        (false, [("CLIENT NOSUCH", "+OK")], false),
        (false, [("CLIENT|KILL ID 77", ":0")], true),
        (false, [("NOSUCH", "+OK")], false),
    ]

    @Test("A client needs its link no more when nothing is held on it and everything is answered", arguments: lives)
    func givesBack(_ life: (resp3: Bool, steps: [(String, String)], isGivenBack: Bool)) {
        let world = pinned(resp3: life.resp3)
        for (at, step) in life.steps.enumerated() {
            world.orders.unpinned = []
            _ = world.turn(.pinned(UInt64(at + 3), link: 2, line: step.0))
            #expect(world.orders.unpinned.isEmpty, "given back while \(step.0) is unanswered")
            _ = world.turn(.reply(2, step.1))
        }
        #expect(world.orders.unpinned == (life.isGivenBack ? [9] : []), "\(life.steps)")
        #expect(world.turn(.down(2)) == [life.isGivenBack ? "lose the pin of 9" : "close client 9"])
    }

    @Test("A link that was given back is closed after half a minute, unless it was used meanwhile")
    func rests() {
        let world = pinned()
        _ = world.turn(.pinned(3, link: 2, line: "MULTI"), .pinned(4, link: 2, line: "EXEC"))
        _ = world.turn(.reply(2, "+OK"), .reply(2, "*0"))
        func live(ms: UInt64) -> [String] {
            (0..<ms / 500).flatMap { _ in world.pass(ms: 500) + world.turn(.reply(1, "+PONG")) }
        }
        #expect(!live(ms: 20_000).contains("close link 2"))
        _ = world.turn(.pinned(5, link: 2, line: "BLPOP q 0"))
        #expect(!live(ms: 40_000).contains("close link 2"))
        _ = world.turn(.reply(2, "*-1"))
        #expect(!live(ms: 20_000).contains("close link 2"))
        _ = world.turn(.pinned(6, link: 2, line: "MULTI"), .pinned(7, link: 2, line: "EXEC"))
        _ = world.turn(.reply(2, "+OK"), .reply(2, "*0"))
        #expect(!live(ms: 29_000).contains("close link 2"))
        let orders = live(ms: 40_000)
        #expect(
            orders.filter { $0 == "close link 2" || $0 == "lose the pin of 9" } == [
                "close link 2", "lose the pin of 9",
            ])
        #expect(world.pinCount == 0)
    }

    @Test(
        "A client that the fast path does not let go keeps its link, is closed with it, and is not closed for resting")
    func notTakenBack() {
        let world = pinned()
        world.orders.takesBack = false
        _ = world.turn(.pinned(3, link: 2, line: "MULTI"), .reply(2, "-NOPERM no"))
        for _ in 0..<120 {
            let orders = world.pass(ms: 500) + world.turn(.reply(1, "+PONG"))
            #expect(!orders.contains("close link 2"))
        }
        #expect(world.turn(.down(2)) == ["close client 9"])
    }

    @Test("What is pipelined behind keeps the link, and what is not answered may leave anything there")
    func pipelined() {
        let world = pinned()
        _ = world.turn(
            .pinned(3, link: 2, "MULTI"), .pinned(4, link: 2, "EXEC"), .pinned(5, link: 2, "BLPOP", "q", "0"))
        _ = world.turn(.reply(2, "+OK"), .reply(2, "*0"))
        #expect(world.orders.unpinned == [])
        _ = world.turn(.reply(2, "*-1"))
        #expect(world.orders.unpinned == [9])
        let silent = pinned()
        _ = silent.turn(.pinned(3, link: 2, line: "CLIENT|REPLY SKIP"), .pinned(4, link: 2, "WATCH", "k"))
        _ = silent.turn(.reply(2, "+PONG"), .pinned(5, link: 2, "GET", "k"), .reply(2, "$1|v"))
        #expect(silent.orders.unpinned == [])
        _ = silent.turn(
            .pinned(6, link: 2, line: "RESET"), .pinned(7, link: 2, line: "CLIENT|REPLY SKIP"),
            .pinned(8, link: 2, line: "SELECT 1"), .reply(2, "+RESET"), .reply(2, "+PONG"))
        _ = silent.turn(.pinned(9, link: 2, "GET", "k"), .reply(2, "$1|v"))
        #expect(silent.orders.unpinned == [], "what was sent behind RESET is not undone by its answer")
        _ = silent.turn(.pinned(10, link: 2, line: "RESET"), .reply(2, "+RESET"))
        #expect(silent.orders.unpinned == [9])
    }

    @Test("A link without our credentials is not kept, nor one on which our own are refused behind RESET")
    func strangerLinks() {
        let policy = FlowWorld.policy { $0.password = Secret("secret") }
        let world = pinned(policy)
        _ = world.turn(.pinned(3, link: 2, line: "RESET"), .reply(2, "+RESET"), .reply(2, "+OK"))
        #expect(world.orders.unpinned == [9])
        world.orders.unpinned = []
        _ = world.turn(.pinned(4, link: 2, line: "RESET"), .reply(2, "+RESET"), .reply(2, "-WRONGPASS no"))
        #expect(world.orders.unpinned == [])
    }

    @Test("CLIENT KILL of a client closes it, though it needs the link that it has no more")
    func killed() {
        let world = named()
        _ = world.turn(.pinned(3, link: 2, line: "MULTI"), .pinned(4, link: 2, line: "EXEC"))
        _ = world.turn(.reply(2, "+OK"), .reply(2, "*0"))
        #expect(
            world.turn(.pinned(5, link: 3, line: "CLIENT|KILL ID 7001")) == ["send 3: CLIENT KILL ID 51"])
        #expect(world.turn(.reply(3, ":1"), .down(2)).contains("close client 9"))
    }

    @Test("A client whose link has another protocol or name than it has now gets another, and loses that")
    func misfit() {
        let world = pinned()
        #expect(
            world.turn(.pin(client: 9, resp3: true, name: "new", link: 2)) == ["close link 2", "open 3: addr"])
        #expect(world.pinCount == 1)
    }

    @Test("A reply that nobody asked for closes link and client")
    func surplus() {
        #expect(pinned().turn(.reply(2, "+OK")) == ["close link 2", "close client 9"])
    }

    @Test("SUBSCRIBE has a confirmation for each name, and messages come between replies")
    func subscribe() {
        let world = pinned()
        _ = world.turn(.pinned(3, link: 2, "SUBSCRIBE", "a", "b"))
        #expect(
            world.turn(
                .reply(2, "*3|$9|subscribe|$1|a|:1"), .reply(2, "*3|$7|message|$1|a|$1|m"),
                .reply(2, "*3|$9|subscribe|$1|b|:2"), .reply(2, "*3|$7|message|$1|b|$1|n")) == [
                    "answer more 3: *3|$9|subscribe|$1|a|:1|", "tell 9: *3|$7|message|$1|a|$1|m|",
                    "answer 3: *3|$9|subscribe|$1|b|:2|", "tell 9: *3|$7|message|$1|b|$1|n|",
                ])
        _ = world.turn(.pinned(4, link: 2, "PSUBSCRIBE", "p*"), .pinned(5, link: 2, "PING"))
        #expect(
            world.turn(
                .reply(2, "*3|$10|psubscribe|$2|p*|:3"), .reply(2, "*4|$8|pmessage|$2|p*|$1|p|$1|m"),
                .reply(2, "*2|$4|pong|$0|")) == [
                    "answer 4: *3|$10|psubscribe|$2|p*|:3|", "tell 9: *4|$8|pmessage|$2|p*|$1|p|$1|m|",
                    "answer 5: *2|$4|pong|$0||",
                ])
    }

    @Test("UNSUBSCRIBE without a name has as many confirmations as there were channels, at least one")
    func unsubscribeAll() {
        let world = pinned()
        _ = world.turn(.pinned(3, link: 2, "SUBSCRIBE", "a", "b"), .pinned(4, link: 2, "PSUBSCRIBE", "p"))
        _ = world.turn(
            .reply(2, "*3|$9|subscribe|$1|a|:1"), .reply(2, "*3|$9|subscribe|$1|b|:2"),
            .reply(2, "*3|$10|psubscribe|$1|p|:3"))
        _ = world.turn(.pinned(5, link: 2, "UNSUBSCRIBE"), .pinned(6, link: 2, "UNSUBSCRIBE"))
        #expect(
            world.turn(
                .reply(2, "*3|$11|unsubscribe|$1|a|:2"), .reply(2, "*3|$11|unsubscribe|$1|b|:1"),
                .reply(2, "*3|$11|unsubscribe|$-1|:1")) == [
                    "answer more 5: *3|$11|unsubscribe|$1|a|:2|", "answer 5: *3|$11|unsubscribe|$1|b|:1|",
                    "answer 6: *3|$11|unsubscribe|$-1|:1|",
                ])
        #expect(
            world.turn(.pinned(7, link: 2, "PUNSUBSCRIBE"), .reply(2, "*3|$12|punsubscribe|$1|p|:0"))
                == ["send 2: PUNSUBSCRIBE", "answer 7: *3|$12|punsubscribe|$1|p|:0|"])
    }

    @Test("An array that only looks like a message is a reply when there is no subscription")
    func lookalike() {
        let world = pinned()
        _ = world.turn(.pinned(3, link: 2, "LRANGE", "l", "0", "-1"))
        #expect(world.turn(.reply(2, "*3|$7|message|$1|a|$1|m")) == ["answer 3: *3|$7|message|$1|a|$1|m|"])
    }

    @Test("A subscription refused, or queued in a transaction, has one reply")
    func subscribeRefused() {
        let world = pinned()
        _ = world.turn(.pinned(3, link: 2, "SUBSCRIBE", "a", "b"), .pinned(4, link: 2, "SUBSCRIBE", "c"))
        #expect(
            world.turn(.reply(2, "-NOPERM no"), .reply(2, "+QUEUED")) == [
                "answer 3: -NOPERM no|", "answer 4: +QUEUED|",
            ])
        _ = world.turn(.pinned(5, link: 2, "EXEC"))
        #expect(
            world.turn(.reply(2, "*1|*3|$9|subscribe|$1|c|:1"), .reply(2, "*3|$7|message|$1|c|$1|m")) == [
                "answer 5: *1|*3|$9|subscribe|$1|c|:1|", "tell 9: *3|$7|message|$1|c|$1|m|",
            ])
    }

    @Test("CLIENT REPLY OFF that is queued, or refused to a subscriber, is answered and switches nothing off")
    func replyNotSwitched() {
        let world = pinned()
        _ = world.turn(
            .pinned(3, link: 2, "MULTI"), .pinned(4, link: 2, "CLIENT", "REPLY", "OFF"),
            .pinned(5, link: 2, "DISCARD"), .pinned(6, link: 2, "SUBSCRIBE", "c"),
            .pinned(7, link: 2, "CLIENT", "REPLY", "OFF"))
        #expect(
            world.turn(
                .reply(2, "+OK"), .reply(2, "+QUEUED"), .reply(2, "+OK"), .reply(2, "*3|$9|subscribe|$1|c|:1"),
                .reply(2, "-ERR Can't execute 'client|reply'")) == [
                    "answer 3: +OK|", "answer 4: +QUEUED|", "answer 5: +OK|", "answer 6: *3|$9|subscribe|$1|c|:1|",
                    "answer 7: -ERR Can't execute 'client|reply'|",
                ])
        _ = world.turn(.pinned(8, link: 2, "UNSUBSCRIBE"), .reply(2, "*3|$11|unsubscribe|$1|c|:0"))
        #expect(world.turn(.pinned(9, link: 2, "CLIENT", "REPLY", "OFF")).last == "answer 9: ")
    }

    @Test("In RESP3 confirmations are pushes, and so are messages; replies are replies")
    func subscribeRESP3() {
        let world = pinned(resp3: true)
        _ = world.turn(.pinned(3, link: 2, "SUBSCRIBE", "a"), .pinned(4, link: 2, "LRANGE", "l", "0", "-1"))
        #expect(
            world.turn(
                .push(2, ">3|$7|message|$1|z|$1|m"), .push(2, ">3|$9|subscribe|$1|a|:1"),
                .reply(2, "*3|$7|message|$1|a|$1|m"), .push(2, ">2|$10|invalidate|*1|$1|k")) == [
                    "tell 9: >3|$7|message|$1|z|$1|m|", "answer 3: >3|$9|subscribe|$1|a|:1|",
                    "answer 4: *3|$7|message|$1|a|$1|m|", "tell 9: >2|$10|invalidate|*1|$1|k|",
                ])
    }

    @Test("MONITOR's lines answer nothing; commands behind it are still answered")
    func monitor() {
        let world = pinned()
        _ = world.turn(.pinned(3, link: 2, "MONITOR"), .pinned(4, link: 2, "ECHO", "x"))
        let line = "+1339518083.107412 [0 127.0.0.1:60866] \"keys\" \"*\""
        #expect(
            world.turn(.reply(2, "+OK"), .reply(2, line), .reply(2, "$1|x")) == [
                "answer 3: +OK|", "tell 9: \(line)|", "answer 4: $1|x|",
            ])
    }

    @Test("CLIENT REPLY OFF and SKIP leave slots without a byte")
    func clientReply() {
        let world = pinned()
        #expect(
            world.turn(
                .pinned(3, link: 2, "CLIENT", "REPLY", "SKIP"), .pinned(4, link: 2, "GET", "a"),
                .pinned(5, link: 2, "GET", "b")) == [
                    "send 2: CLIENT REPLY SKIP", "answer 3: ", "send 2: GET a", "answer 4: ", "send 2: PING", "mark 9",
                    "send 2: GET b",
                ])
        #expect(world.turn(.reply(2, "+PONG"), .reply(2, "$1|b")) == ["settle 9", "answer 5: $1|b|"])
        #expect(
            world.turn(
                .pinned(3, link: 2, "CLIENT", "REPLY", "off"), .pinned(4, link: 2, "GET", "a"),
                .pinned(5, link: 2, "CLIENT", "REPLY", "ON"), .reply(2, "+OK"), .reply(2, "+OK")) == [
                    "send 2: CLIENT REPLY off", "answer 3: ", "send 2: GET a", "answer 4: ", "send 2: CLIENT REPLY ON",
                    "send 2: CLIENT REPLY OFF", "mark 9", "send 2: CLIENT REPLY ON", "settle 9", "answer 5: +OK|",
                ])
    }

    @Test("Behind writes that are not answered something is sent that is, one at a time, and never inside of MULTI")
    func settling() {
        let world = pinned()
        let asked = ["send 2: CLIENT REPLY ON", "send 2: CLIENT REPLY OFF", "mark 9"]
        _ = world.turn(.pinned(3, link: 2, "CLIENT", "REPLY", "OFF"))
        #expect(world.turn(.pinned(4, link: 2, "SET", "a", "1")).suffix(3) == asked)
        #expect(world.turn(.pinned(5, link: 2, "SET", "b", "1")) == ["send 2: SET b 1", "answer 5: "])
        #expect(world.turn(.reply(2, "+OK")) == ["settle 9"] + asked)
        #expect(world.turn(.reply(2, "+OK")) == ["settle 9"])
        _ = world.turn(.pinned(6, link: 2, "MULTI"))
        #expect(world.turn(.pinned(7, link: 2, "SET", "c", "1")) == ["send 2: SET c 1", "answer 7: "])
        #expect(world.turn(.pinned(8, link: 2, "EXEC")).suffix(3) == asked)
        #expect(world.turn(.reply(2, "+OK")) == ["settle 9"])
        /* Whether replies are off behind this EXEC cannot be seen, so nothing of ours must turn them off. */
        _ = world.turn(.pinned(3, link: 2, "MULTI"), .pinned(4, link: 2, "CLIENT", "REPLY", "ON"))
        #expect(world.turn(.pinned(5, link: 2, "EXEC")) == ["send 2: EXEC", "answer 5: "])
    }

    @Test("After RESET the link is authenticated again, and is not subscribed")
    func reset() {
        let policy = FlowWorld.policy { $0.password = Secret("pw") }
        let world = FlowWorld.connected(policy)
        _ = world.turn(.pin(client: 9))
        #expect(world.turn(.up(2)) == ["send 2: HELLO 2 AUTH default pw", "send 2: INFO server", "send 2: PING"])
        _ = world.turn(.reply(2, "*0"), .reply(2, "$0|"), .reply(2, "+PONG"))
        _ = world.turn(.pinned(3, link: 2, "SUBSCRIBE", "a"), .reply(2, "*3|$9|subscribe|$1|a|:1"))
        #expect(
            world.turn(.pinned(4, link: 2, "RESET"), .pinned(5, link: 2, "LRANGE", "l", "0", "-1")) == [
                "send 2: RESET", "send 2: AUTH pw", "send 2: LRANGE l 0 -1",
            ])
        #expect(
            world.turn(.reply(2, "+RESET"), .reply(2, "+OK"), .reply(2, "*3|$7|message|$1|a|$1|m")) == [
                "answer 4: +RESET|", "answer 5: *3|$7|message|$1|a|$1|m|",
            ])
    }

    @Test("Many pins come and go, each found by its link")
    func churn() {
        let world = FlowWorld.connected()
        for round in 0..<20 {
            let link = LinkID(2 + round)
            _ = world.turn(.pin(client: LinkID(round)))
            _ = world.turn(.up(link), .reply(link, "*0"), .reply(link, "$0|"), .reply(link, "+PONG"))
            #expect(world.turn(.pinned(3, link: link, "GET", "a"), .reply(link, "$-1")).last == "answer 3: $-1|")
            if round >= 3 { _ = world.turn(.gone(client: LinkID(round - 3), link: link - 3)) }
        }
        #expect(world.pinCount == 3)
    }
}
