import Glibc
import Testing

@Suite("Simulation", .serialized)
struct SimulationTests {
    /// FERRITE_SEEDS=A..B, 1..40 if not set; one a line, told when they are clean, for scripts/simulate. FERRITE_STORY: with
    /// the last FERRITE_LINES things that happened, also of clean ones.
    @Test("Seeds run clean")
    func seeds() throws {
        let range = Self.setting("FERRITE_SEEDS") ?? "1..40"
        let ends = range.split(separator: ".").compactMap { UInt64($0) }
        let last = ends.count > 1 ? ends[1] : ends[0]
        var coverage: [String: Int] = [:]
        var first = ends[0]
        let isTold = Self.setting("FERRITE_STORY") != nil
        for seed in ends[0]...last {
            let world = try World(seed: seed, keepsHistory: isTold)
            world.run()
            if isTold, world.failure == nil { Self.tell(world) }
            coverage.merge(world.coverage) { $0 + $1 }
            if world.coverage["commands", default: 0] < 200 { coverage["seeds of under 200 commands", default: 0] += 1 }
            if let failure = world.failure { return try report(seed, failure) }
            if seed % 100 == 0 || seed == last {
                print("clean \(first)..\(seed)")
                fflush(nil)
                first = seed + 1
            }
        }
        print("\(last - ends[0] + 1) seeds in all")
        for (name, count) in coverage.sorted(by: { $0.key < $1.key }) { print("covered \(name): \(count)") }
    }

    @Test("Seeds that fail without a rule are clean", arguments: keptSeeds.map(\.seed))
    func kept(_ seed: UInt64) throws {
        let world = try World(seed: seed)
        world.run()
        #expect(world.failure == nil)
    }

    @Test("The judge takes values of two instants in one MGET for wrong, and takes those of one")
    func twoInstants() throws {
        for (second, isWrong) in [("b2", true), ("b1", false)] {
            let world = try World(seed: 1)
            let client = world.clients[0]
            for (key, value) in [(0, "a1"), (1, "b1"), (0, "a2"), (1, "b2")] {
                world.model.truth.begin()
                world.model.truth.record(
                    key: key, value: Truth.hash(value.array), nowNs: world.nowNs, expiresNs: .max)
            }
            world.connect(client)
            client.asked = []
            world.ask(client, [["MGET", "k0", "k1"].map(\.array)], [.read([0, 1])])
            let asked = client.asked[0]
            world.judge([Truth.hash("a1".array), Truth.hash(second.array)], [0, 1], asked, client)
            #expect((world.failure != nil) == isWrong)
        }
    }

    @Test("A seed replays exactly")
    func replay() throws {
        for seed in [3, 77, 4_242] as [UInt64] {
            let first = try World(seed: seed, keepsHistory: true)
            first.run()
            let second = try World(seed: seed, keepsHistory: true)
            second.run()
            #expect(first.history == second.history)
            #expect(first.coverage == second.coverage)
        }
    }

    /* Runs it once more, to tell its story. */
    private func report(_ seed: UInt64, _ failure: String) throws {
        let again = try World(seed: seed, keepsHistory: true)
        again.run()
        print("seed \(seed) \(again.failure ?? "does not fail when it is replayed: \(failure)")")
        Self.tell(again)
        Issue.record("seed \(seed): \(failure)")
    }

    private static func tell(_ world: World) {
        let lines = setting("FERRITE_LINES").flatMap { Int($0) } ?? 60
        for line in world.history.suffix(lines) { print("history \(line)") }
    }

    private static func setting(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
}
