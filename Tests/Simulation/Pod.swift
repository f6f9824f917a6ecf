import CFastPath

@testable import Sidecar

/// One direction of a connection: bytes arrive in order, each piece at its time.
struct Channel {
    /// Nothing arrives before the piece before it.
    var lastNs: UInt64 = 0
    /// Nothing arrives before then; UInt64.max: ever.
    var heldUntilNs: UInt64 = 0
    var extraNs: UInt64 = 0
}

/// A connection of a sidecar, seen from outside.
final class Wire {
    enum Peer {
        case client(SimClient)
        case upstream
    }

    let number: fp_wire
    let peer: Peer
    /// At the upstream, once it has been picked up.
    var connection: UpstreamModel.Connection?
    var toEngine = Channel()
    var fromEngine = Channel()
    /// Its other side has gone, or the network has cut it.
    var isCut = false
    var isUpstream: Bool { if case .upstream = peer { true } else { false } }
    /// The pod knows of its end.
    var isOver = false
    /// Reset, or given up by the kernel: what is held up is not sent again. 0: it is not.
    var deadNs: UInt64 = 0
    /// What was sent on it is acknowledged by nobody: the kernel gives it up after link_timeout (TCP_USER_TIMEOUT).
    var isDoomed = false

    init(_ number: fp_wire, _ peer: Peer) {
        self.number = number
        self.peer = peer
    }
}

/// A sidecar: the whole of CFastPath and the flow, on a simulated network. And what its clients have been told.
final class Pod {
    let index: Int
    private(set) var sim: OpaquePointer
    private(set) var loop: Loop
    /// Of its journal; nil: it has none.
    let disk: Disk?
    private(set) var journal: Journal?
    /// What the journal's thread is at.
    var journalWork: JournalWork?
    /// Between two processes.
    private var isGone = false
    /// How often it was killed.
    private(set) var life = 0
    var wires: [Wire?] = []
    /// The time for which its next turn is planned.
    var wakeNs = UInt64.max
    /// It has not the processor from then on, and not before that.
    var stalledFromNs: UInt64 = 0
    var stalledUntilNs: UInt64 = 0

    /// Keys that were written while a link of it was silent: of interest as it hears of them piece by piece.
    var missedKeys: [Int] = []
    /// When what they missed begins to come.
    var missedFromNs: UInt64 = 0
    /// Nothing comes to it from the upstream before then, on new links neither.
    var mutedUntilNs: UInt64 = 0

    /// Whatever the upstream held when this command ran has been told to some client of the pod.
    var floor = 0
    /// It serves what is cached though it is suspect.
    var isUnreachable = false
    /// Its tracked link was up when the upstream began to take nobody.
    var wasUpWhenFull = false
    /// By key: a version that began with this command, or later, has been read.
    var read: [Int]
    /// The same without what scripts have read and written.
    var served: [Int]
    /// By key: an own write that this command carried out, or a later one, has been answered.
    var written: [Int]
    /// When what is cached was last served though it was suspect, or without tracking.
    var laxNs: UInt64 = 0
    /// When reads were last refused because none was answered in time.
    var slowNs: UInt64 = 0

    init(_ index: Int, _ plan: Plan, seed: UInt64, nowNs: UInt64) throws {
        self.index = index
        var chance = Chance(seed: seed)
        disk = plan.config.journal.isEmpty ? nil : Disk(&chance)
        journal = try disk?.open()
        (sim, loop, _) = try Self.begin(plan, seed: seed, nowNs: nowNs, journal)
        read = Array(repeating: 0, count: plan.keys + 1)
        served = read
        written = read
    }

    private static func begin(
        _ plan: Plan, seed: UInt64, nowNs: UInt64, _ journal: Journal?
    ) throws -> (OpaquePointer, Loop, [FlowNotice]) {
        guard let sim = fp_sim_create() else { throw JournalFailure("no memory") }
        fp_sim_time(sim, nowNs)
        var settings = EngineSettings(plan.config)
        settings.simulation = sim
        settings.seed = seed | 1
        let engine = try FastPath(settings)
        try engine.attach()
        let notices = try journal?.restore(to: engine, Disk.clockMs) ?? []
        var policy = FlowPolicy(plan.config, networkName: "sim", seed: seed)
        /* Within these seconds, too. */
        policy.pinRestNs = [policy.pinRestNs, 300 * millisecond, 20 * millisecond][Int(seed % 3)]
        let loop = Loop(engine: engine, policy: policy)
        return (sim, loop, notices)
    }

    /// The process is gone, and another one begins; what it has found in its journal.
    func restart(_ plan: Plan, seed: UInt64, nowNs: UInt64) throws -> [FlowNotice] {
        destroy()
        life += 1
        wires = []
        wakeNs = .max
        journalWork = nil
        missedKeys = []
        isUnreachable = false
        journal = nil /* its lock goes with it */
        journal = try disk?.open()
        let notices: [FlowNotice]
        (sim, loop, notices) = try Self.begin(plan, seed: seed, nowNs: nowNs, journal)
        isGone = false
        return notices
    }

    /// Whether it is of the present process.
    func owns(_ wire: Wire) -> Bool { self.wire(wire.number) === wire }

    func destroy() {
        if isGone { return }
        isGone = true
        loop.engine.destroy()
        fp_sim_destroy(sim)
    }

    func wire(_ number: fp_wire) -> Wire? {
        Int(number) < wires.count ? wires[Int(number)] : nil
    }

    func add(_ wire: Wire) {
        while wires.count <= Int(wire.number) { wires.append(nil) }
        wires[Int(wire.number)] = wire
    }

    var links: [Wire] {
        wires.compactMap { wire in
            guard let wire, case .upstream = wire.peer, !wire.isCut else { return nil }
            return wire
        }
    }

    /// The link whose pushes are applied, if there is one.
    var trackedWire: Wire? { links.first { $0.connection.map { $0.tracking != .off } ?? false } }
}
