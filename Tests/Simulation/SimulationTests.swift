import Glibc
import Testing

@Suite("Simulation", .serialized)
struct SimulationTests {
    /// FERRITE_SEEDS=A..B, 1..200 if not set.
    @Test("Seeds run clean")
    func seeds() throws {
        let range = getenv("FERRITE_SEEDS").map { String(cString: $0) } ?? "1..200"
        let ends = range.split(separator: ".").compactMap { UInt64($0) }
        let last = ends.count > 1 ? ends[1] : ends[0]
        let lines = getenv("FERRITE_LINES").flatMap { Int(String(cString: $0)) } ?? 60
        let isVerbose = getenv("FERRITE_VERBOSE") != nil
        var coverage: [String: Int] = [:]
        let began = clock()
        for seed in ends[0]...last {
            if isVerbose { print("seed \(seed)") }
            let world = try World(seed: seed)
            world.run()
            coverage.merge(world.coverage) { $0 + $1 }
            if let failure = world.failure {
                let again = try World(seed: seed, keepsHistory: true)
                again.run()
                print("seed \(seed) \(again.failure ?? "does not fail when it is replayed: \(failure)")")
                print(again.history.suffix(lines).joined(separator: "\n"))
                Issue.record("seed \(seed): \(failure)")
                return
            }
        }
        let seconds = Double(clock() - began) / Double(CLOCKS_PER_SEC)
        print("\(last - ends[0] + 1) seeds in \(seconds) s")
        for (name, count) in coverage.sorted(by: { $0.key < $1.key }) { print("  \(name): \(count)") }
    }
}
