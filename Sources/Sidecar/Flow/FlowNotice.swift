/// What is worth a line in the log: made by the flow on the loop thread, written by the control thread.
enum FlowNotice: Sendable, Equatable {
    case up(version: String, tracking: Bool, trackingReason: String)
    case lost(reason: String)
    /// The first failed attempt since the link was up, one with another reason than the last, or the first that shows
    /// that nobody is there: from then on what is cached is served.
    case unreachable(reason: String, isServed: Bool)
    /// It answers, with an error: credentials, most often.
    case refused(reason: String)
    /// It answers, and one of the two will not have the other's certificate, or TLS.
    case untrusted(reason: String)
    /// The heartbeat is late.
    case suspended
    case resumed
    /// New commands of the upstream's.
    case learnt(commands: UInt32)
    /// Acknowledged writes are refused for now, each to be tried again for so long; once in a while.
    case writesRefused(reason: String, retryMs: UInt64)
    /// Acknowledged writes that are given up, since the last such line.
    case deadLetters(count: Int, last: DeadLetter)
    /// At the end of a drain, when there is write-behind: what was acknowledged and has not been carried out, whether the
    /// journal has it, and what has been given up since the start.
    case drained(unwritten: Int, isJournaled: Bool, givenUp: Int)
    /// What an earlier process has acknowledged and not carried out.
    case journalRestored(writes: Int)
    /// The end of its last file, which a crash has torn: cut.
    case journalTorn(bytes: Int)
    /// A file of no bytes.
    case journalEmpty(path: String)
    /// Where a copy of the file is kept, or why there is none.
    case journalDamaged(path: String, kept: String)
    /// It cannot be written: writes are acknowledged when they have been carried out.
    case journalFailed(reason: String)
    case journalIsBack
    /// After that: its files can be neither removed nor emptied, and clients wait for it.
    case journalStuck(reason: String)
    /// They do so no longer, or the process ends.
    case journalLeft(reason: String)
    /// At the end: the disk does not answer, and is not waited for.
    case journalHangs(seconds: Int)
    /// It has begun, or goes on.
    case prefetching(PrefetchStatus)
    case prefetched(PrefetchStatus)
    case bypassed(Bool)
    case flushedByControl
    /// The control key cannot be read: what it last said holds.
    case controlUnread(reason: String)
    /// Since the last such line.
    case turnedAway(TurnedAway)
}
