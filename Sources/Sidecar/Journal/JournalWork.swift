/// What the flow wants of the journal's thread; one thing at a time.
enum JournalWork: @unchecked Sendable {
    /// The bytes are the engine's, which keeps them until it hears that they are written.
    case write(UnsafeRawBufferPointer, oldest: UInt64, next: UInt64)
    case sync
    /// It tells of nothing any more.
    case clear
    /// Whether it can be written to again.
    case reopen
}

/// What came of it.
struct JournalOutcome: Sendable {
    var work: JournalWork
    var failure: JournalFailure?
    var status: JournalStatus
}

extension Journal {
    func perform(_ work: JournalWork) -> JournalOutcome {
        var failure: JournalFailure?
        do throws(JournalFailure) {
            switch work {
            case .write(let records, let oldest, let next): try append(records, oldest: oldest, next: next)
            case .sync: try sync()
            case .clear: try clear()
            case .reopen: try reopen()
            }
        } catch {
            failure = error
            noteFailure()
        }
        return JournalOutcome(work: work, failure: failure, status: status)
    }
}
