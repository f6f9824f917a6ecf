import Glibc
import Logging
import Testing

@testable import Sidecar

@Suite("Warm start")
struct WarmStartTests {
    private func names(_ words: String...) -> HotNames {
        var names = HotNames()
        for word in words { names.append(Array(word.utf8)) }
        return names
    }

    @Test("What is written is read back, names of any bytes")
    func roundTrip() {
        var all = names("user:1", "", "with blank", "line\nbreak")
        all.append([UInt8](0...255))
        #expect(WarmStart.parse(WarmStart.text(all)) == all)
        #expect(WarmStart.parse(WarmStart.text(HotNames())) == HotNames())
    }

    @Test(
        "What is damaged or another's is not used",
        arguments: [
            "", "FERRITE WARM 2\n", "FERRITE WARM 1\n6 user:", "FERRITE WARM 1\nuser:1\n",
            "FERRITE WARM 1\n6 user:12\n",
            "FERRITE WARM 1\n9999999 x\n", "FERRITE WARM 1\n-1 x\n", "FERRITE WARM 1\n1",
        ])
    func damaged(text: String) { #expect(WarmStart.parse(Array(text.utf8)) == nil) }

    @Test(
        "What another has written is never replaced; what is not there, empty or a damaged file of ours is",
        arguments: [
            ("something else", false), ("FERRITE WARM 2\n1 x\n", false), ("FERRITE", false),
            (String(repeating: "x", count: 3 << 20), false), ("FERRITE WARM 1\n6 user:", true), ("", true), (nil, true),
        ] as [(String?, Bool)])
    func others(text: String?, isReplaced: Bool) throws {
        let path = "/tmp/ferrite-test-warm-\(getpid())-\(UInt32.random(in: 0...(.max)))"
        defer { unlink(path) }
        if let text {
            let file = try #require(fopen(path, "w"))
            fputs(text, file)
            fclose(file)
        }
        let warm = WarmStart(path: path, log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        #expect(warm.read().isEmpty)
        warm.write(names("k"))
        let left = TextFile.read(path, bytesMax: 4 << 20)
        #expect(left == (isReplaced ? "FERRITE WARM 1\n1 k\n" : text))
    }

    @Test("Names are bounded in number and in bytes")
    func bounded() {
        var names = HotNames()
        for number in 0..<HotNames.countMax + 10 { names.append(Array("k\(number)".utf8)) }
        #expect(names.count == HotNames.countMax)
        var large = HotNames()
        for _ in 0..<100 { large.append([UInt8](repeating: 1, count: 20_000)) }
        #expect(large.bytes.count <= HotNames.bytesMax && large.count == 52)
    }

    @Test("The hottest are chosen, and of those of one heat as many as there is room for")
    func leastHeat() {
        var counts = [Int](repeating: 0, count: 256)
        #expect(HotNames.leastHeat(counts) == 0)
        counts[200] = 100
        #expect(HotNames.leastHeat(counts) == 0)
        counts[7] = 20_000
        #expect(HotNames.leastHeat(counts) == 7)
        counts[100] = HotNames.countMax - 100
        #expect(HotNames.leastHeat(counts) == 100)
        counts[255] = 700_000
        #expect(HotNames.leastHeat(counts) == 255)
    }

    @Test("They are fetched before the patterns, once, and not when a pattern is asked for by hand")
    func prefetched() {
        var policy = FlowWorld.policy {
            $0.prefetch.enabled = true
            $0.prefetch.patterns = ["a:*"]
            $0.prefetch.jitterMs = 1_000
        }
        policy.prefetch.warm = names("hot:1", "hot:2")
        let world = FlowWorld(policy)
        world.connect(link: 1)
        let first = world.pass(ms: 1_100)
        let fetched = first.filter { $0.hasPrefix("fetch") || $0.contains("SCAN") }
        #expect(fetched.prefix(2) == ["fetch hot:1", "fetch hot:2"])
        #expect(fetched.last == "send 1: SCAN 0 MATCH a:* COUNT 100 TYPE string")
        _ = world.turn(.reply(1, "*2|$1|0|*0"))
        _ = world.pass(ms: 50)
        #expect(world.status.prefetch.state == .done && world.status.prefetch.fetched == 2)
    }

    @Test(
        "What has not been fetched is left for the next process: before it begins, on the way, and when there was no room"
    )
    func unfetched() {
        var policy = FlowWorld.policy { $0.prefetch.jitterMs = 200 }
        policy.prefetch.warm = names("a", "b", "c")
        let world = FlowWorld(policy)
        world.orders.window = 1
        world.connect(link: 1)
        #expect(world.unfetched == names("a", "b", "c"))
        #expect(world.pass(ms: 250).contains("fetch a"))
        #expect(world.unfetched == names("b", "c"))
        world.orders.window = 1
        world.orders.room = 1
        _ = world.pass(ms: 100)
        world.orders.window = 1
        _ = world.pass(ms: 100)
        #expect(world.status.prefetch.state == .full && world.unfetched == names("c"))
        world.orders.room = 1
        _ = world.flush()
        #expect(world.pass(ms: 250).contains("fetch c") && world.unfetched.isEmpty)
    }

    @Test("What is left stands behind what is hot, each name once, within the bound")
    func merged() {
        var hot = names("a", "b")
        hot.appendNew(names("c", "b", "d"))
        #expect(hot == names("a", "b", "c", "d"))
        var many = HotNames()
        for number in 1..<HotNames.countMax { many.append(Array("k\(number)".utf8)) }
        many.appendNew(names("k1", "a", "b"))
        #expect(many.count == HotNames.countMax && many.from(HotNames.countMax - 1) == names("a"))
    }
}
