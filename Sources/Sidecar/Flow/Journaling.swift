import Glibc

/// Journaling — what the journal's thread is to do next, and what follows from what it has done.
///
///     on ──► failing: nothing more is taken, what is queued is carried out ──► clearing: its files go ──► off
///      ▲                                                                                                   │
///      └──────────────────────────────── it can be written again, tried every second ◄─────────────────────┘
///
/// A file that cannot be written tells of writes that have been carried out since as if they had not. So before anybody who
/// waits hears that his write is done it must be gone; and whoever is acknowledged meanwhile has had his write carried out.
/// A disk that has become read-only lets no file go either. After `clearNs` who waits goes on all the same, since his write
/// has been carried out; but a next process that finds the files sends it again, so the log says what to do, and the files go
/// before anything is written again.
struct Journaling {
    enum State {
        /// There is none.
        case none
        case on, failing, clearing, off
    }

    static let retryNs: UInt64 = 1_000_000_000
    /// How long clients wait for files that can be neither removed nor emptied.
    static let clearNs: UInt64 = 5_000_000_000
    /// With `everysec`.
    static let syncNs: UInt64 = 1_000_000_000

    private(set) var state = State.none
    /// What is acknowledged and not carried out stands in them: they go when nothing is left.
    var hasFiles: Bool { [.on, .failing, .clearing].contains(state) }
    var status = JournalStatus()
    private let syncsEachSecond: Bool
    /// The thread has something to do.
    private var isBusy = false
    private var retryAtNs: UInt64 = 0
    /// Since when its files cannot be removed; nil: they can, or nobody waits for that.
    private var stuckSinceNs: UInt64?
    /// When something was written that is not on the disk; nil: there is nothing.
    private var unsyncedSinceNs: UInt64?

    /// UInt64.max: nothing waits for it.
    var syncAtNs: UInt64 {
        guard state == .on, !isBusy, let since = unsyncedSinceNs else { return .max }
        return since &+ Self.syncNs
    }

    /// nil: there is none.
    init(_ fsync: SidecarConfig.JournalFsync?) {
        syncsEachSecond = fsync == .everysec
        if fsync != nil { state = .on }
    }

    /// Nil: nothing, or it is still busy.
    fileprivate mutating func next(
        _ orders: some Orders, nowNs: UInt64, isSettled: Bool, isRefused: Bool, _ notices: inout [FlowNotice]
    ) -> JournalWork? {
        guard !isBusy else { return nil }
        if state == .on, orders.journalIsShort {
            fail(JournalFailure("journal: local_memory has no room for its records"), orders, nowNs, &notices)
        }
        let work = work(orders, nowNs: nowNs, isSettled: isSettled, isRefused: isRefused)
        isBusy = work != nil
        return work
    }

    private mutating func work(_ orders: some Orders, nowNs: UInt64, isSettled: Bool, isRefused: Bool) -> JournalWork? {
        switch state {
        case .none, .clearing: return nil
        case .on:
            if let since = unsyncedSinceNs, nowNs >= since &+ Self.syncNs { return .sync }
            return orders.takeJournal()
        case .failing:
            /* Nobody carries them out: he would wait for as long as that lasts. */
            if isRefused { orders.forsakeJournal() }
            guard isSettled, nowNs >= retryAtNs else { return nil }
            state = .clearing
            return .clear
        case .off: return nowNs >= retryAtNs ? .reopen : nil
        }
    }

    private mutating func fail(
        _ failure: JournalFailure, _ orders: some Orders, _ nowNs: UInt64, _ notices: inout [FlowNotice]
    ) {
        orders.journalOff()
        state = .failing
        retryAtNs = nowNs
        unsyncedSinceNs = nil
        notices.append(.journalFailed(reason: failure.description))
    }

    fileprivate mutating func did(
        _ outcome: JournalOutcome, _ orders: some Orders, _ nowNs: UInt64, _ notices: inout [FlowNotice]
    ) {
        isBusy = false
        status = outcome.status
        defer { status.isOn = state == .on }
        switch outcome.work {
        case .write, .sync:
            if let failure = outcome.failure { return fail(failure, orders, nowNs, &notices) }
            wrote(outcome.work, orders, nowNs)
        case .clear:
            cleared(outcome.failure, orders, nowNs, &notices)
        case .reopen:
            retryAtNs = nowNs &+ Self.retryNs
            guard outcome.failure == nil else { return }
            state = .on
            orders.journalOn(next: 0)
            notices.append(.journalIsBack)
        }
    }

    private mutating func cleared(
        _ failure: JournalFailure?, _ orders: some Orders, _ nowNs: UInt64, _ notices: inout [FlowNotice]
    ) {
        retryAtNs = nowNs &+ Self.retryNs
        if let failure {
            if stuckSinceNs == nil { notices.append(.journalStuck(reason: failure.description)) }
            let since = stuckSinceNs ?? nowNs
            stuckSinceNs = since
            guard nowNs &- since >= Self.clearNs else {
                state = .failing
                return
            }
            notices.append(.journalLeft(reason: failure.description))
        }
        stuckSinceNs = nil
        state = .off
        orders.journalGone()
    }

    private mutating func wrote(_ work: JournalWork, _ orders: some Orders, _ nowNs: UInt64) {
        if case .sync = work {
            unsyncedSinceNs = nil
        } else {
            if syncsEachSecond, unsyncedSinceNs == nil { unsyncedSinceNs = nowNs }
            orders.journalWritten()
        }
    }
}

extension Flow {
    /// Asked after every turn.
    @inline(__always)
    mutating func nextJournalWork() -> JournalWork? {
        if journaling.state == .none { return nil }
        let isRefused = !tracked.isUp && !isConnecting
        return journaling.next(
            orders, nowNs: nowNs, isSettled: unwritten == 0, isRefused: isRefused, &notices)
    }

    mutating func journalDid(_ outcome: JournalOutcome, nowNs: UInt64) {
        self.nowNs = nowNs
        journaling.did(outcome, orders, nowNs, &notices)
        settle()
    }

    /// The last that was done, at the end of the process.
    mutating func journalEnded(_ outcome: JournalOutcome) {
        guard case .clear = outcome.work, let failure = outcome.failure else { return }
        notices.append(.journalLeft(reason: failure.description))
    }
}

extension Journal {
    /// Hands over what earlier processes have left; returns what the log is to tell. `clockMs`: wall clock minus the engine's.
    func restore(to orders: some Orders, _ clockMs: Int64) throws(JournalFailure) -> [FlowNotice] {
        guard let remains else { return [] }
        var notices: [FlowNotice] = []
        if remains.tornBytes > 0 { notices.append(.journalTorn(bytes: remains.tornBytes)) }
        for path in remains.empty { notices.append(.journalEmpty(path: path)) }
        for path in remains.damaged {
            let kept = keepDamaged(path)
            let how =
                kept.map { "a copy is kept as \($0)" } ?? "no copy can be kept: \(String(cString: strerror(errno)))"
            notices.append(.journalDamaged(path: path, kept: how))
        }
        orders.journalOn(next: remains.next)
        try remains.forEach { write throws(JournalFailure) in
            let expireAtMs = write.expireAtMs.map { UInt64(clamping: $0 - clockMs) } ?? JournalRecord.never
            if orders.restoreWrite(place: write.place, write.key, write.value, expireAtMs: expireAtMs) { return }
            throw JournalFailure(
                "journal: its \(remains.count) writes do not fit in write_behind.memory; give it what it had when they were acknowledged, until they have been sent"
            )
        }
        if remains.count > 0 { notices.append(.journalRestored(writes: remains.count)) }
        noteRestored(remains.count)
        return notices
    }
}
