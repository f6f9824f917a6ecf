import Testing

@testable import Sidecar

@Suite("Write-behind")
struct WriteBehindTests {
    private func world() -> FlowWorld {
        FlowWorld.connected(
            FlowWorld.policy {
                $0.mode = .writeBehind
                $0.writeBehind.retryMs = 5_000
            })
    }

    @Test("What is acknowledged is sent at the end of the turn, and taken out when it is confirmed")
    func flush() {
        let world = world()
        world.orders.queuedKeys = ["a", "b"]
        #expect(world.turn() == ["write 1: a b"])
        #expect(world.turn(.write(4, "INCR", "c")) == ["send 1: INCR c"])
        #expect(
            world.turn(.reply(1, "+OK"), .reply(1, ":1"), .reply(1, ":7"))
                == ["a is confirmed", "b is confirmed", "answer 4 resp3: :7|"])
    }

    @Test("The link is reset whenever it ends, so that nothing of it arrives behind what the next process sends")
    func reset() {
        let world = FlowWorld(FlowWorld.policy { $0.mode = .writeBehind })
        world.resolve()
        #expect(world.turn(.up(1)).contains("reset link 1 at its end"))
        let other = FlowWorld()
        other.resolve()
        #expect(!other.turn(.up(1)).contains { $0.hasPrefix("reset") })
    }

    @Test("Nothing is fetched behind a write under broadcast, which announces our own write behind the fetch")
    func broadcast() {
        var config = SidecarConfig()
        config.mode = .writeBehind
        #expect(FetchRule.all(of: config).allSatisfy { $0.fillsBehind })
        config.tracking = .broadcast
        #expect(FetchRule.all(of: config).allSatisfy { !$0.fillsBehind })
    }

    @Test("No more fly at one time than the window holds")
    func window() {
        let world = world()
        world.orders.queuedKeys = (0..<WriteBehind.windowCount + 1).map { "k\($0)" }
        #expect(world.turn().count == 1)
        #expect(world.orders.flyingKeys.count == WriteBehind.windowCount && world.orders.queuedKeys.count == 1)
        #expect(world.turn() == [])
        #expect(world.turn(.reply(1, "+OK")) == ["k0 is confirmed", "write 1: k\(WriteBehind.windowCount)"])
    }

    @Test(
        "A refusal that may pass pauses the sending, and the write is tried again",
        arguments: [
            "-OOM command not allowed", "-READONLY You can't write", "-LOADING Redis is", "-MISCONF Redis is",
            "-NOAUTH Authentication required.", "-BUSY Redis is",
        ])
    func refusedForNow(error: String) {
        let world = world()
        world.orders.queuedKeys = ["a", "b"]
        _ = world.turn()
        #expect(world.turn(.reply(1, error)) == ["a is retried"])
        #expect(world.turn(.reply(1, "+OK")) == ["b is confirmed", "write 1: a"])
        #expect(world.turn(.reply(1, error)) == ["a is retried"])
        #expect(world.turn() == [])
        #expect(world.deadlineMs <= 1_013)
        #expect(world.pass(ms: 30) == ["write 1: a"])
        #expect(world.turn(.reply(1, "+OK")) == ["a is confirmed"])
        #expect(world.flow.writes.deadLetters == [])
    }

    @Test("Our own words in place of an answer that there was no memory for refuse nothing")
    func answerIsLost() {
        let world = world()
        world.orders.queuedKeys = ["a"]
        _ = world.turn()
        #expect(
            world.turn(.reply(1, "-ERR local_memory is spent: the reply cannot be held")) == ["a is retried"])
    }

    @Test("The log hears of refusals when they begin, and every ten seconds while they last")
    func refusalIsTold() {
        let world = world()
        world.orders.queuedKeys = ["a"]
        for _ in 0..<60 {
            _ = world.pass(ms: 200)
            while let awaited = world.flow.tracked.owed.first?.pointee.awaited {
                _ = world.turn(.reply(1, awaited == .written ? "-OOM full" : "+PONG"))
            }
        }
        #expect(
            world.flow.notices.filter { $0 == .writesRefused(reason: "OOM full", retryMs: 5_000) }.count == 2)
    }

    @Test("A server that is a replica now is doubted: a new connection shows whether the address leads elsewhere")
    func replica() {
        let world = FlowWorld.connected(
            FlowWorld.policy {
                $0.mode = .writeBehind
                $0.upstream = UpstreamAddress(host: "127.0.0.1", port: 7)
            })
        _ = world.pass(ms: 1_000)
        _ = world.turn(.reply(1, "+PONG"))
        let orders = world.turn(.write(4, "SET", "a", "v", "NX"), .reply(1, "-READONLY You can't write"))
        #expect(orders.contains { $0.hasPrefix("open 2: ") })
        #expect(world.turn(.up(2)).contains("send 2: PING"))
        #expect(world.turn(.reply(2, "*0"), .reply(2, "$12|run_id:other"), .reply(2, "+PONG")).contains("abort link 1"))
    }

    @Test("Where the upstream has a name that is asked first, at most once in half a second")
    func replicaByName() {
        let world = world()
        _ = world.pass(ms: 1_000)
        world.orders.queuedKeys = ["a"]
        _ = world.turn(.reply(1, "+PONG"))
        #expect(world.turn(.reply(1, "-READONLY You can't write")) == ["a is retried"])
        #expect(world.wantsAddresses)
        world.resolve(.addresses([Array("elsewhere".utf8)]))
        let orders = world.orders.take()
        #expect(orders.contains("abort link 1") && orders.contains("open 2: elsewhere"))
        world.resolve(.addresses([Array("elsewhere".utf8)]))
        world.connect(link: 2)
        _ = world.pass(ms: 1_000)
        _ = world.turn(.reply(2, "+OK"), .reply(2, "+PONG"), .write(5, "INCR", "x"), .reply(2, "-READONLY x"))
        #expect(world.wantsAddresses)
        world.resolve(.addresses([Array("elsewhere".utf8)]))
        #expect(
            world.orders.take().contains { $0.hasPrefix("open 3: ") }) /* the name leads here: a connection tells */
        _ = world.turn(.write(6, "INCR", "x"), .reply(2, "-READONLY x"))
        #expect(!world.wantsAddresses)
    }

    @Test("What is refused for longer than retry_for is given up, and so is at once what is refused for good")
    func refusedForGood() {
        let world = world()
        world.orders.queuedKeys = ["a", "b", "c"]
        _ = world.turn()
        #expect(world.turn(.reply(1, "-NOPERM no permission")) == ["a is refused"])
        #expect(
            world.flow.writes.deadLetters == [DeadLetter(key: "a", reason: "NOPERM no permission", atNs: 1_000_000_000)]
        )
        world.orders.refusedMs = ["b": 500]
        world.sleep(ms: 4_500)
        #expect(world.turn(.reply(1, "-OOM full"), .reply(1, "-WRONGTYPE x")).contains("b is refused"))
        #expect(world.flow.writes.deadLetters.map(\.key) == ["a", "b", "c"])
        /* A line a second at most, and none is left out. */
        #expect(lettersTold(world) == [1, 2])
    }

    @Test("What is given up is told without its value, which a server that does not know SET repeats")
    func valuesAreNotTold() {
        let world = world()
        world.orders.queuedKeys = ["k"]
        _ = world.turn()
        _ = world.turn(.reply(1, "-ERR unknown command 'SET', with args beginning with: 'k' 'secret' "))
        #expect(world.flow.writes.deadLetters.map(\.reason) == ["ERR unknown command 'SET'"])
    }

    private func lettersTold(_ world: FlowWorld) -> [Int] {
        world.flow.notices.compactMap { if case .deadLetters(let count, _) = $0 { count } else { nil } }
    }

    @Test("Of what is given up none goes untold, though nothing follows, and a drain tells of it at once")
    func everyLetterIsTold() {
        let world = world()
        world.orders.queuedKeys = ["a", "b", "c", "d"]
        world.orders.clients = 0
        _ = world.turn()
        _ = world.turn(.reply(1, "-NOPERM no"), .reply(1, "-NOPERM no"), .reply(1, "-NOPERM no"))
        #expect(lettersTold(world).reduce(0, +) == 3)
        world.sleep(ms: 10)
        _ = world.turn(.reply(1, "-NOPERM no"))
        #expect(lettersTold(world).reduce(0, +) == 3)
        world.orders.queuedKeys = ["e"]
        _ = world.pass(ms: 990)
        #expect(lettersTold(world).reduce(0, +) == 4)
        _ = world.turn(.reply(1, "-NOPERM no"))
        #expect(lettersTold(world).reduce(0, +) == 4)
        world.flow.beginDrain(world.nowMs * 1_000_000)
        #expect(lettersTold(world).reduce(0, +) == 5)
        #expect(world.flow.notices.last == .drained(unwritten: 0, isJournaled: false, givenUp: 5))
    }

    @Test("When the link is lost what was on its way is sent again on the next")
    func lostLink() {
        let world = world()
        world.orders.queuedKeys = ["a", "b"]
        _ = world.turn()
        let lost = world.turn(.down(1, 104))
        #expect(lost.contains("unsend") && !lost.contains { $0.hasPrefix("close slot") })
        #expect(world.pass(ms: 20).filter { $0.hasPrefix("write") } == [])
        world.connect(link: 2)
        _ = world.turn()
        #expect(world.orders.flyingKeys == ["a", "b"])
    }

    @Test("A drain waits for what is acknowledged, and says what is left when its time is over")
    func drain() {
        let world = world()
        world.orders.queuedKeys = ["a"]
        world.orders.clients = 0
        _ = world.turn()
        world.flow.beginDrain(1_000_000_000)
        #expect(!world.isFinished)
        #expect(world.orders.take().contains("close write-behind"))
        _ = world.turn(.reply(1, "+OK"))
        #expect(world.isFinished && world.flow.notices.last == .drained(unwritten: 0, isJournaled: false, givenUp: 0))
        let other = self.world()
        other.orders.queuedKeys = ["a", "b"]
        other.orders.clients = 0
        _ = other.turn()
        other.flow.beginDrain(1_000_000_000)
        _ = other.pass(ms: 5_000)
        #expect(other.isFinished && other.flow.notices.last == .drained(unwritten: 2, isJournaled: false, givenUp: 0))
    }
}
