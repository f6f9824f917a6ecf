import CFastPath
import Glibc

@testable import Sidecar

/// Disk — a journal's directory, real files in memory, which outlive the processes of a pod.
final class Disk {
    private let path: String
    /// Nothing more can be written.
    var isFull = false
    let fileBytesMax: Int
    let bytesMax: Int
    /// Wall clock minus the engine's.
    static let clockMs: Int64 = 7_000

    init(_ chance: inout Chance) {
        let folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"
        var template = Array("\(folder)/ferrite-simulation-XXXXXX".utf8CString)
        path = template.withUnsafeMutableBufferPointer { buffer in
            guard let base = buffer.baseAddress, let made = mkdtemp(base) else { return "" }
            return String(cString: made)
        }
        fileBytesMax = chance.pick([100, 1_000, 10_000])
        bytesMax = chance.pick([2_000, 20_000])
    }

    deinit {
        for name in names { unlink(path + "/" + name) }
        rmdir(path)
    }

    private var names: [String] { (try? JournalRemains.names(in: path)) ?? [] }

    func open() throws(JournalFailure) -> Journal {
        try Journal(path, fsync: .no, bytesMax: bytesMax, fileBytesMax: fileBytesMax, clockMs: { Self.clockMs })
    }

    /// The last bytes that were written are not there: as many as a crash may take, at most.
    func tear(_ bytes: Int) {
        guard let last = names.last else { return }
        var status = stat()
        let name = path + "/" + last
        guard stat(name, &status) == 0 else { return }
        truncate(name, max(0, status.st_size - off_t(bytes)))
    }
}

extension World {
    /// What the journal's thread has to do is done after a while.
    func journalOn(_ pod: Pod) {
        guard pod.journalWork == nil, let work = pod.loop.nextJournalWork() else { return }
        pod.journalWork = work
        let longest = chance.oneIn(10) ? 30 * millisecond : millisecond
        queue.push(nowNs + chance.between(20_000, longest), .journal(pod, pod.life))
    }

    func didJournal(_ pod: Pod, _ life: Int) {
        guard life == pod.life, let work = pod.journalWork, let journal = pod.journal, let disk = pod.disk else {
            return
        }
        pod.journalWork = nil
        var outcome = JournalOutcome(work: work, failure: nil, status: journal.status)
        if disk.isFull, work.writes {
            outcome.failure = JournalFailure("journal: no space")
        } else {
            outcome = journal.perform(work)
            if let failure = outcome.failure { fail("pod\(pod.index): \(failure)") }
        }
        fp_sim_time(pod.sim, nowNs)
        pod.loop.journalDid(outcome)
        cover("journal: \("\(work)".prefix { $0 != "(" })\(outcome.failure == nil ? "" : " fails")")
        stir(pod)
    }

    /// The pod's process is killed, in the middle of whatever it does, and another begins with what the disk has.
    func crash(_ pod: Pod) {
        guard let disk = pod.disk else { return }
        note("pod\(pod.index) is killed")
        judgeAudits(pod)
        if case .write(let records, _, _) = pod.journalWork, !disk.isFull {
            let outcome = chance.below(3)
            if outcome > 0, let work = pod.journalWork { _ = pod.journal?.perform(work) }
            if outcome > 1 { disk.tear(1 + chance.below(records.count + JournalFrame.headBytes - 1)) }
            cover("journal: killed while it was written")
        }
        for wire in pod.links { cut(pod, wire, reset: true) }
        for client in clients where client.pod === pod && client.isConnected {
            pod.wire(client.wire)?.isCut = true
            disconnected(client)
        }
        queue.removeAll { event in
            switch event {
            case .pickUp(let other, _), .toEngine(let other, _, _), .endToEngine(let other, _, _): other === pod
            case .toClient(let client, _, _), .endToClient(let client, _): client.pod === pod
            default: false
            }
        }
        registers.forgetUnacknowledged()
        for client in clients where client.pod === pod { client.ownFloor = registers.floor }
        do {
            let found = try pod.restart(plan, seed: chance.next(), nowNs: nowNs)
            for notice in found { note("pod\(pod.index): \(notice)") }
            if case .journalRestored = found.last { cover("journal: restarts with something to restore") }
        } catch {
            fail("pod\(pod.index) does not start again: \(error)")
        }
        cover("journal: restarts")
        wake(pod, at: nowNs)
    }
}

extension JournalWork {
    /// It needs room on the disk.
    fileprivate var writes: Bool {
        switch self {
        case .write, .reopen: true
        case .sync, .clear: false
        }
    }
}
