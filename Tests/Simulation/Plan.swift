@testable import Sidecar

/// Plan — what a seed decides before anything happens: the configuration, who takes part, and what goes wrong when.
struct Plan {
    enum Fault: Equatable {
        /// Upstream connections of a pod end, orderly or by a reset; some of them or all.
        case cut(reset: Bool, all: Bool)
        /// One of the pod's upstream connections, mostly the tracked one, carries nothing for this long, or nothing to the
        /// pod; nothing is lost.
        case blackhole(UInt64)
        /// It carries nothing ever again, and neither side is told.
        case halfOpen
        /// The server takes connections and bytes but does nothing: a slow command, a fork, SIGSTOP.
        case freeze(UInt64)
        /// The process ends and is back with its data after this long.
        case restart(UInt64)
        /// Another server takes over, with data of an earlier time, or none.
        case failover(isEmpty: Bool)
        /// A restart behind which it is loading for this long.
        case loading(UInt64)
        /// It cannot save: writes and PING are refused for this long, and some connections end.
        case misconf(UInt64)
        /// All connections end, and the password is another one for this long.
        case password(UInt64)
        /// All connections end, and CLIENT TRACKING is refused for this long.
        case trackingRefused(UInt64)
        /// Some connections of a pod end, and for this long new ones are refused: in words, by a server that has too many
        /// clients, or at once, as by a balancer, while the others live.
        case full(UInt64, inWords: Bool)
        /// A write of a client with a link of its own is late, and others read meanwhile; when it has been carried out nothing
        /// comes back for this long, on that link or on any of the pod's.
        case lateWrite(UInt64, all: Bool)
        /// The pod's tracked connection falls silent, keys change and a client reads them on a link of its own; then all
        /// connections are reset and none is taken for this long.
        case seenThenGone(UInt64)
        /// The pod's tracked connection is slower by this much for a while.
        case lag(UInt64, for: UInt64)
        /// The pod has not the processor for this long, and half of the time its tracked connection carries nothing to it
        /// meanwhile, and for a second more.
        case stall(UInt64)
        /// A client's fetch is under way behind its own passed read, a copy is there, and the pod stands still until nobody may
        /// join that fetch any more; then the client reads again, in front of what has come for it.
        case ownFetch
        /// A link is lost, and the next falls silent under a fetch of a key that changed meanwhile; when it has been
        /// answered the upstream is gone.
        case fetchedThenGone(UInt64)
        /// A client's connection ends, by a reset or orderly in the middle of what it asked.
        case clientGone(reset: Bool)
        /// A client does not read for this long.
        case clientDeaf(UInt64)
        /// A pod's process is killed, and started again at once.
        case killed
        /// The disk of its journal is full for this long.
        case diskFull(UInt64)
    }

    var pods: Int
    var clientsPerPod: Int
    var commands: Int
    var keys: Int
    var lengthNs: UInt64
    var localMemory: UInt64
    var config: SidecarConfig
    var speaksTracking: Bool
    var tableMax: Int
    var valueBytesMax: Int
    var delayNs: (low: UInt64, high: UInt64)
    var clientDelayNs: (low: UInt64, high: UInt64)
    var splits: Int
    /// Of ten plain commands so many more are reads: a cache that is seldom hit shows little.
    var readsOfTen: Int
    /// Who has been told of something makes another client look at once, one time in so many; 0: never.
    var curiosity: Int
    /// The writers elsewhere pause so many times longer.
    var writersPause: UInt64
    /// Keys with large values that nobody writes: they push others out.
    var fillers: Int
    var roomBytes: Int
    var faults: [(atNs: UInt64, fault: Fault)]
    var isBehind = false
    /// Registers are written by plain commands alone.
    var isPlainOnly = false

    init(_ chance: inout Chance) {
        pods = chance.oneIn(3) ? 2 : 1
        clientsPerPod = 4 + chance.below(4)
        commands = 240 + chance.below(150)
        keys = 2 + chance.below(8)
        lengthNs = chance.between(5 * second, 9 * second)
        localMemory = chance.pick([3 << 20, 4 << 20, 8 << 20])
        speaksTracking = !chance.oneIn(8)
        tableMax = chance.oneIn(4) ? 1 + chance.below(6) : .max
        valueBytesMax = chance.pick([4, 40, 400, 20_000])
        let delays: [(low: UInt64, high: UInt64)] = [
            (20_000, 200_000), (100_000, 2 * millisecond), (millisecond, 20 * millisecond),
        ]
        delayNs = chance.pick(delays)
        clientDelayNs = (5_000, 100_000)
        splits = chance.pick([0, 2, 6])
        roomBytes = chance.pick([65_536, 65_536, 700, 50])
        readsOfTen = chance.pick([0, 4, 7])
        curiosity = chance.pick([0, 1, 2])
        writersPause = chance.pick([1, 1, 5])
        fillers = roomBytes > 1_000 && chance.oneIn(6) ? 30 : 0
        config = SidecarConfig()
        config.upstream = UpstreamAddress(host: "127.0.0.1", port: 6379)
        config.maxClients = 32
        config.readTimeoutMs = chance.pick([30, 50, 200, 1_000, 3_000])
        config.connectTimeoutMs = chance.pick([50, 100, 300])
        config.linkTimeoutMs = chance.pick([1_000, 2_000, 5_000])
        config.ttlDefaultMs = chance.pick([300, 5_000, 300_000])
        config.fence = !chance.oneIn(12)
        config.eviction = chance.pick([.lru, .lfu, .random])
        config.localMemory = localMemory
        var ahead = chance
        Self.drawCache(&config, keys: keys, seed: ahead.next())
        faults = []
        for _ in 0..<2 + chance.below(3) {
            faults.append((chance.between(second / 2, lengthNs - second / 2), Self.fault(&chance)))
        }
        if ahead.oneIn(5) {
            let chance = ahead
            makeBehind(&ahead)
            keepJournal(chance)
        }
        if ahead.oneIn(3) { faults.append((ahead.between(second / 2, lengthNs - second / 2), .ownFetch)) }
        if config.readTimeoutMs >= 1_000, !isBehind, ahead.oneIn(4) {
            let length = ahead.between(second, 3 * second)
            faults.append((ahead.between(second / 2, lengthNs - second / 2), .fetchedThenGone(length)))
        }
        if ahead.oneIn(5) { config.audit = ahead.pick([1, 0.1]) }
        if ahead.oneIn(5) {
            config.prefetch.enabled = true
            config.prefetch.jitterMs = ahead.pick([0, 3_000])
            config.prefetch.scansPerSecond = ahead.pick([5, 1_000])
            config.prefetch.fillsPerSecond = ahead.pick([10, 10_000])
            config.prefetch.patterns = ahead.pick([["k*"], ["k1*", "*"]])
        }
    }

    /// Only the pod writes, and behind: keys are registers.
    private mutating func makeBehind(_ chance: inout Chance) {
        isBehind = true
        isPlainOnly = chance.oneIn(2)
        pods = 1
        config.mode = .writeBehind
        config.writeBehind.memory = chance.pick([256 << 10, 8_000, 100_000])
        for rule in config.rules.indices where config.rules[rule].mode != nil { config.rules[rule].mode = .writeBehind }
        for place in faults.indices {
            switch faults[place].fault {
            /* An upstream that forgets is nobody's register. */
            case .failover, .seenThenGone: faults[place].fault = .restart(300 * millisecond)
            case .lateWrite: faults[place].fault = .cut(reset: true, all: true)
            default: break
            }
        }
    }

    /// What is acknowledged survives the process, which is killed now and then.
    private mutating func keepJournal(_ other: Chance) {
        var draw = other
        var chance = Chance(seed: draw.next() ^ 0x4A6F_7572)
        guard chance.oneIn(2) else { return }
        config.journal = "/simulated"
        config.journalFsync = chance.pick([.always, .everysec, .no])
        /* What the kernel may hold of its file is taken out of it. */
        localMemory = 8 << 20
        config.localMemory = localMemory
        for _ in 0..<1 + chance.below(4) {
            faults.append((chance.between(second / 2, lengthNs - second / 2), .killed))
        }
        guard chance.oneIn(3) else { return }
        let length = chance.between(100 * millisecond, 3 * second)
        faults.append((chance.between(second / 2, lengthNs - second / 2), .diskFull(length)))
    }

    /// Modes, rules and stale values, by draws of their own.
    private static func drawCache(_ config: inout SidecarConfig, keys: Int, seed: UInt64) {
        var chance = Chance(seed: seed)
        config.mode = chance.oneIn(2) ? .writeThrough : .readThrough
        config.serveStale = !chance.oneIn(3)
        config.staleMaxMs = chance.pick([200, 2_000, 60_000])
        guard chance.oneIn(2) else { return }
        var brief = KeyRule(pattern: "k[0-1]")
        brief.ttlMs = chance.pick([20, 150, 1_000])
        brief.staleMs = chance.pick([0, 300, 30_000])
        var uncached = KeyRule(pattern: "k\(chance.below(keys))")
        uncached.cache = false
        var otherMode = KeyRule(pattern: "?[1-3]")
        otherMode.mode = config.mode == .readThrough ? .writeThrough : .readThrough
        config.rules = [uncached, brief, otherMode]
    }

    /// Nobody asks for it or writes it but in the moments that are made up.
    var quietKey: Int { keys }

    /// The longest time for which a key is served, and for which it is past its time.
    var ttlMaxMs: UInt64 { config.rules.reduce(config.ttlDefaultMs) { max($0, $1.ttlMs ?? 0) } }
    var staleMaxMs: UInt64 {
        config.serveStale ? config.rules.reduce(config.staleMaxMs) { max($0, $1.staleMs ?? 0) } : 0
    }

    /// A fetch takes readers for no longer; a clock counts in milliseconds.
    var joinableNs: UInt64 { (min(config.readTimeoutMs, 1_500) + 1) * millisecond }

    /// After this nobody waits for a fetch any more; a clock counts in milliseconds.
    var longestFetchNs: UInt64 { (config.readTimeoutMs + 5) * millisecond }

    /// Nothing that was sent on a link is carried out when the link has been given up.
    var forgetsNothing: Bool {
        !faults.contains {
            switch $0.fault {
            case .blackhole, .halfOpen, .freeze, .seenThenGone, .fetchedThenGone: true
            case .lateWrite(_, all: true): true
            default: false
            }
        }
    }

    /// Whenever a link is up there is tracking on it.
    var isAlwaysTracked: Bool {
        speaksTracking && !faults.contains { if case .trackingRefused = $0.fault { true } else { false } }
    }

    private static func fault(_ chance: inout Chance) -> Fault {
        switch chance.below(23) {
        case 0, 1: .cut(reset: chance.oneIn(2), all: chance.oneIn(2))
        case 2: .blackhole(chance.between(100 * millisecond, 3 * second))
        /* Long enough to be suspended, and short enough to be trusted again at once. */
        case 14, 15: .blackhole(chance.between(500 * millisecond, 1_500 * millisecond))
        case 3: .halfOpen
        case 4: .freeze(chance.between(100 * millisecond, 1_500 * millisecond))
        case 5: .restart(chance.between(50 * millisecond, 2 * second))
        case 6: .failover(isEmpty: chance.oneIn(2))
        case 7: .loading(chance.between(50 * millisecond, second))
        case 8: .password(chance.between(100 * millisecond, second))
        case 9: .trackingRefused(chance.between(100 * millisecond, second))
        case 10, 11:
            .lag(chance.between(millisecond, 30 * millisecond), for: chance.between(200 * millisecond, 2 * second))
        case 20: .misconf(chance.between(100 * millisecond, 2 * second))
        case 12: .stall(chance.between(300 * millisecond, 5 * second))
        case 13: .clientGone(reset: chance.oneIn(2))
        case 18: .lateWrite(chance.between(100 * millisecond, second), all: false)
        /* Long enough to count as gone. */
        case 19: .lateWrite(chance.between(1_500 * millisecond, 4 * second), all: true)
        case 21: .seenThenGone(chance.between(second, 3 * second))
        case 16, 17: .full(chance.between(100 * millisecond, 2 * second), inWords: chance.oneIn(2))
        default: .clientDeaf(chance.between(50 * millisecond, 500 * millisecond))
        }
    }
}
