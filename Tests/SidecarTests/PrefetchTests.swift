import Testing

@testable import Sidecar

@Suite("Prefetch")
struct PrefetchTests {
    private func world(_ change: @escaping (inout SidecarConfig) -> Void = { _ in }) -> FlowWorld {
        FlowWorld.connected(
            FlowWorld.policy {
                $0.prefetch.enabled = true
                $0.prefetch.patterns = ["*"]
                $0.prefetch.jitterMs = 0
                change(&$0)
            })
    }

    private func page(_ cursor: String, _ keys: String...) -> TestEvent {
        .reply(
            1, "*2|$\(cursor.utf8.count)|\(cursor)|*\(keys.count)" + keys.map { "|$\($0.utf8.count)|\($0)" }.joined())
    }

    @Test("The keys of a pattern are scanned page by page, and each page's names are fetched before the next")
    func pages() {
        let world = world { $0.prefetch.patterns = ["a:*"] }
        /* The first SCAN was sent with the link. */
        #expect(world.pass(ms: 100) == [])
        #expect(
            world.turn(page("7", "a:1", "a:2")) == [
                "fetch a:1", "fetch a:2", "send 1: SCAN 7 MATCH a:* COUNT 100 TYPE string",
            ])
        #expect(world.pass(ms: 20) == [])
        _ = world.turn(page("0", "a:3"))
        _ = world.pass(ms: 20)
        #expect(world.status.prefetch.state == .done)
        #expect(world.status.prefetch.fetched == 3 && world.status.prefetch.pages == 2)
        #expect(world.pass(ms: 5_000).allSatisfy { !$0.contains("SCAN") })
    }

    @Test("One walk serves several patterns, whose names are matched here")
    func onePass() {
        let world = world { $0.prefetch.patterns = ["a:*", "b:*"] }
        _ = world.pass(ms: 100)
        #expect(
            world.turn(page("7", "b:1", "c:1", "a:1", "xa:1")) == [
                "fetch b:1", "fetch a:1", "send 1: SCAN 7 COUNT 100 TYPE string",
            ])
        _ = world.turn(page("0", "c:2", "b:2"))
        _ = world.pass(ms: 100)
        #expect(world.status.prefetch.state == .done)
        #expect(world.status.prefetch.names == 3 && world.status.prefetch.fetched == 3)
        #expect(world.status.prefetch.pages == 2)
    }

    @Test("A page's names that match are kept as far as they are bounded, and what does not match takes no place")
    func bounded() {
        var machine = machine(patterns: ["a*", "b*"])
        #expect(scan(&machine, atMs: 0) == "0 ")
        let names = ["c", "a"].flatMap { name in (0..<40).map { _ in String(repeating: name, count: 2_000) } }
        hear(&machine, "*2|$1|7|*80" + names.map { "|$2000|\($0)" }.joined(), atMs: 0)
        #expect(scan(&machine, atMs: 100) == "7 ")
        #expect(machine.status.names == 40 && machine.status.fetched == UInt64(Prefetch.pageBytesMax / 2_000))
    }

    @Test("How far it is is told when it begins, every five seconds, and at the end")
    func progress() {
        var machine = machine(patterns: ["a*"])
        #expect(machine.progress(0) == nil)
        #expect(scan(&machine, atMs: 10) != nil)
        #expect(machine.progress(10_000_000)?.names == 0)
        hear(&machine, "*2|$1|7|*2|$2|a1|$2|a2", atMs: 20)
        #expect(scan(&machine, atMs: 200) != nil)
        #expect(machine.progress(200_000_000) == nil)
        #expect(machine.progress(5_010_000_000)?.fetched == 2)
        #expect(machine.progress(5_020_000_000) == nil)
    }

    @Test("SCAN calls and fills keep to their rates")
    func rates() {
        let world = world {
            $0.prefetch.scansPerSecond = 10
            $0.prefetch.fillsPerSecond = 100
        }
        _ = world.turn()
        let names = (0..<100).map { "k\($0)" }
        _ = world.turn(
            .reply(1, "*2|$1|1|*100" + names.map { "|$\($0.utf8.count)|\($0)" }.joined()))
        let fetched = world.pass(ms: 500).count { $0.hasPrefix("fetch") }
        #expect((45...55).contains(fetched))
        #expect(world.pass(ms: 700).count { $0.hasPrefix("send 1: SCAN") } == 1)
        _ = world.turn(page("2"))
        #expect(world.pass(ms: 95).count { $0.hasPrefix("send 1: SCAN") } <= 1)
    }

    @Test("The pace holds for what is asked for by hand and for warm_start, patterns or not")
    func paceWithoutPatterns() {
        let policy = FlowWorld.policy {
            $0.prefetch.patterns = ["a:*"]
            $0.prefetch.scansPerSecond = 7
            $0.prefetch.fillsPerSecond = 11
            $0.prefetch.jitterMs = 13
            $0.prefetch.timeoutMs = 1_700
        }
        #expect(policy.prefetch.patterns == [])
        #expect(policy.prefetch.scanIntervalNs == 1_000_000_000 / 7 && policy.prefetch.fillsPerSecond == 11)
        #expect(policy.prefetch.jitterNs == 13_000_000 && policy.prefetch.timeoutNs == 1_700_000_000)
    }

    @Test("Full pages are fetched at the whole rate, and at no more than it")
    func fullRate() {
        let world = world()
        world.orders.room = 10_000
        _ = world.turn()
        let names = (0..<100).map { "k\($0)" }
        let page = "*2|$1|1|*100" + names.map { "|$\($0.utf8.count)|\($0)" }.joined()
        _ = world.turn(.reply(1, page))
        var fetched = 0
        for _ in 0..<18 {
            var ordered = world.pass(ms: 50)
            if ordered.contains(where: { $0.hasPrefix("send 1: SCAN") }) { ordered += world.turn(.reply(1, page)) }
            fetched += ordered.count { $0.hasPrefix("fetch") }
        }
        #expect((1_700...1_800).contains(fetched))
    }

    @Test("What would queue before clients' answers waits, and is not left out")
    func window() {
        let world = world()
        world.orders.window = 1
        _ = world.turn()
        let names = world.turn(page("7", "a:1", "a:2"))
        let fetched = (names + world.pass(ms: 50)).filter { $0.hasPrefix("fetch") }
        #expect(fetched == ["fetch a:1"] && world.status.prefetch.state == .running)
        world.orders.window = 1
        #expect(world.pass(ms: 5).filter { $0.hasPrefix("fetch") } == ["fetch a:2"])
    }

    @Test("What its rule never keeps is not counted as fetched")
    func neverKept() {
        let world = world()
        #expect(world.turn(page("0", "a:1", "never:1", "never:2")) == ["fetch a:1"])
        _ = world.pass(ms: 100)
        let status = world.status.prefetch
        #expect(status.state == .done && status.names == 3 && status.fetched == 1 && status.notKept == 2)
    }

    @Test("It ends when there is no room, and when its time is over, whatever the cursor says")
    func ends() {
        let full = world()
        full.orders.room = 1
        _ = full.turn()
        _ = full.turn(page("7", "a:1", "a:2"))
        _ = full.pass(ms: 50)
        #expect(full.status.prefetch.state == .full && full.status.prefetch.fetched == 1)
        let endless = world { $0.prefetch.timeoutMs = 1_000 }
        _ = endless.turn()
        for _ in 0..<200 where endless.status.prefetch.state == .running {
            _ = endless.turn(page("1"))
            _ = endless.pass(ms: 11)
        }
        #expect(endless.status.prefetch.state == .timedOut)
        #expect((50...101).contains(endless.status.prefetch.pages))
    }

    /// A machine by itself, begun at the time 0.
    private func machine(patterns: [String], jitterMs: UInt64 = 0) -> Prefetch {
        var policy = Prefetch.Policy()
        policy.patterns = patterns.map { Array($0.utf8) }
        policy.jitterNs = jitterMs * 1_000_000
        var machine = Prefetch(policy, seed: 3)
        machine.begin(0)
        return machine
    }

    private func scan(_ machine: inout Prefetch, atMs: UInt64) -> String? {
        guard case .scan(let cursor, let pattern) = machine.step(atMs * 1_000_000, fetch: { _ in .begun }) else {
            return nil
        }
        return String(decoding: cursor + [32] + (pattern ?? []), as: UTF8.self)
    }

    private func hear(_ machine: inout Prefetch, _ text: String, atMs: UInt64) {
        Array(wire(text).utf8).withUnsafeBufferPointer { machine.heard($0, atMs * 1_000_000) }
    }

    @Test("The answer to a SCAN of one that has ended is not taken for that of the next")
    func outdated() {
        var machine = machine(patterns: ["a"])
        #expect(scan(&machine, atMs: 0) == "0 a")
        machine.begin(1_000_000)
        guard case .ended = machine.step(30_000_000_000, fetch: { _ in .begun }) else {
            Issue.record("it has not ended")
            return
        }
        #expect(scan(&machine, atMs: 30_001) == nil)
        hear(&machine, "*2|$1|0|*0", atMs: 30_002)
        #expect(scan(&machine, atMs: 30_003) == "0 a")
        hear(&machine, "*2|$1|7|*0", atMs: 30_004)
        #expect(scan(&machine, atMs: 30_103) == "7 a")
    }

    @Test("An error is tried again, what only fails is given up, a lost link goes on where it was")
    func errors() {
        var machine = machine(patterns: ["a"])
        var atMs: UInt64 = 0
        #expect(scan(&machine, atMs: atMs) == "0 a")
        hear(&machine, "*2|$1|9|*0", atMs: atMs)
        #expect(scan(&machine, atMs: atMs + 10) == "9 a")
        machine.failed((atMs + 11) * 1_000_000, "ERR")
        #expect(scan(&machine, atMs: atMs + 300) == "9 a")
        atMs += 300
        for nonsense in ["+OK", "*1|$1|0", "*2|:1|*0"] {
            hear(&machine, nonsense, atMs: atMs)
            atMs += 1_500
            #expect(scan(&machine, atMs: atMs) == "9 a")
        }
        hear(&machine, "*2|$1|8|*0", atMs: atMs)
        atMs += 100
        for error in 1...UInt64(Prefetch.errorsMax) {
            #expect(scan(&machine, atMs: atMs) == "8 a")
            machine.failed(atMs * 1_000_000, "ERR")
            #expect(scan(&machine, atMs: atMs + 200 * error - 1) == nil)
            atMs += 200 * error
        }
        #expect(scan(&machine, atMs: atMs) == nil)
        #expect(machine.phase == .resting && machine.status.errors == 4 + UInt64(Prefetch.errorsMax))
    }

    @Test("What the upstream said last is kept, and no more of it than a line")
    func lastError() {
        let world = world()
        _ = world.turn(.reply(1, "-NOPERM this user has no permissions to run the 'scan' command"))
        #expect(world.status.prefetch.lastError == "NOPERM this user has no permissions to run the 'scan' command")
        _ = world.pass(ms: 300)
        _ = world.turn(.reply(1, "-ERR " + String(repeating: "x", count: 10_000)))
        #expect(world.status.prefetch.errors == 2 && world.status.prefetch.lastError.count == 200)
        _ = world.pass(ms: 500)
        _ = world.turn(.reply(1, "+OK"))
        #expect(world.status.prefetch.lastError == "the reply to SCAN is none")
    }

    @Test("It begins at a random time within its jitter")
    func jitter() {
        var machine = machine(patterns: ["a"], jitterMs: 5_000)
        guard case .waiting(let untilNs) = machine.phase else { return #expect(Bool(false)) }
        #expect(untilNs > 0 && untilNs < 5_000_000_000)
        #expect(scan(&machine, atMs: untilNs / 1_000_000 - 1) == nil)
        #expect(scan(&machine, atMs: untilNs / 1_000_000 + 1) == "0 a")
    }

    @Test("Under bypass nothing is fetched ahead; it goes on when that is over")
    func bypass() {
        let world = world { $0.prefetch.patterns = ["a:*"] }
        _ = world.turn()
        world.flow.setBypass(byHand: true)
        #expect(world.turn(page("0", "a:1")) == ["bypass true"])
        #expect(world.pass(ms: 100).allSatisfy { !$0.hasPrefix("fetch") })
        #expect(world.prefetch("b:*") == .bypassed)
        world.flow.setBypass(byHand: false)
        #expect(world.turn() == ["bypass false", "fetch a:1"])
    }

    @Test("A flush begins it anew")
    func flush() {
        let world = world { $0.prefetch.patterns = ["a:*"] }
        _ = world.turn()
        _ = world.turn(page("0"))
        _ = world.pass(ms: 20)
        #expect(world.status.prefetch.state == .done)
        let ordered = world.turn(.push(1, ">2|$10|invalidate|_"))
        #expect(ordered == ["drop all", "send 1: SCAN 0 MATCH a:* COUNT 100 TYPE string"])
    }

    @Test("A flush by hand begins it anew, and one while it is under way has it begin once more behind that")
    func flushWhileUnderWay() {
        let world = world { $0.prefetch.patterns = ["a:*"] }
        let scan = "send 1: SCAN 0 MATCH a:* COUNT 100 TYPE string"
        _ = world.turn()
        _ = world.turn(.push(1, ">2|$10|invalidate|_"))
        #expect(world.flush() == ["drop all"])
        #expect(world.turn(page("0")) == [])
        #expect(world.pass(ms: 20).filter { $0.contains("SCAN") } == [scan])
        _ = world.turn(page("0"))
        #expect(world.pass(ms: 1_000).allSatisfy { !$0.contains("SCAN") })
        #expect(world.status.prefetch.state == .done)
        #expect(world.flush() == ["drop all", scan])
    }

    @Test("One by hand needs the upstream: without it nothing begins, and nothing stands in the way of a later one")
    func byHandWithoutUpstream() {
        let world = FlowWorld(FlowWorld.policy())
        #expect(world.prefetch("b:*") == .unreachable)
        world.connect(link: 1)
        _ = world.orders.take()
        #expect(world.prefetch("b:*") == .begun)
        #expect(world.orders.take() == ["send 1: SCAN 0 MATCH b:* COUNT 100 TYPE string"])
        #expect(world.prefetch("c:*") == .underWay)
        _ = world.turn(.down(1))
        #expect(world.prefetch("c:*") == .unreachable)
    }

    @Test("One by hand stands before the configured one that waits, not in its place")
    func byHandBeforeTheConfigured() {
        var policy = FlowWorld.policy {
            $0.prefetch.enabled = true
            $0.prefetch.patterns = ["a:*"]
            $0.prefetch.jitterMs = 1_000
        }
        policy.prefetch.warm.append(Array("hot".utf8))
        let world = FlowWorld(policy)
        world.connect(link: 1)
        #expect(world.prefetch("b:*") == .begun)
        #expect(world.pass(ms: 20).allSatisfy { !$0.hasPrefix("fetch") } && world.status.prefetch.pages == 1)
        let ordered = world.turn(page("0", "b:1")) + world.pass(ms: 1_100)
        #expect(
            ordered.filter { $0.hasPrefix("fetch") || $0.contains("SCAN") } == [
                "fetch b:1", "fetch hot", "send 1: SCAN 0 MATCH a:* COUNT 100 TYPE string",
            ])
    }
}
