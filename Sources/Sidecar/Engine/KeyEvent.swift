import CFastPath

/// KeyEvent — one thing that happened to the key which trace_key names, in words for the log.
struct KeyEvent: Sendable, CustomStringConvertible {
    let kind: fp_trace_kind
    /// What it counts depends on the kind.
    let number: UInt64

    init(_ kind: fp_trace_kind, _ number: UInt64) {
        self.kind = kind
        self.number = number
    }

    var description: String {
        switch kind {
        case .FP_TRACE_HIT: "answered from the copy" + (number > 1 ? ", \(number) times" : "")
        case .FP_TRACE_SUSPECT_HIT: "answered from the suspect copy of epoch \(number): the upstream is unreachable"
        case .FP_TRACE_FETCH: "asked for, fetched from the upstream"
        case .FP_TRACE_JOIN: "asked for, joined the fetch that is under way"
        case .FP_TRACE_SUSPECT: "there is a copy, but of epoch \(number): it is suspect"
        case .FP_TRACE_STALE: "there is a copy, but its ttl is over"
        case .FP_TRACE_STALE_HIT: "answered from the copy past its time: the upstream does not answer"
        case .FP_TRACE_REFRESH: "its time is nearly over: fetched again behind the answer"
        case .FP_TRACE_AUDIT: "compared with the upstream behind the answer"
        case .FP_TRACE_AUDIT_STALE: "the copy was old, though no change had been announced"
        case .FP_TRACE_PREFETCH: "fetched ahead"
        case .FP_TRACE_BEHIND_WRITE: "fetched behind the write"
        case .FP_TRACE_ABSENT: "kept: there is no such key"
        case .FP_TRACE_FILLED: "kept, \(number) bytes"
        case .FP_TRACE_NOT_KEPT: "what came is not kept"
        case .FP_TRACE_SPOILED: "what came is not kept: it had changed meanwhile"
        case .FP_TRACE_CHANGED: "the upstream announced a change" + dropped
        case .FP_TRACE_WRITTEN: "written by a client of this pod" + dropped
        case .FP_TRACE_TAKEN: "written by a client of this pod, acknowledged and queued" + dropped
        case .FP_TRACE_OWN: "answered from a write that is not carried out yet"
        case .FP_TRACE_SENT: "that write is sent"
        case .FP_TRACE_CONFIRMED: "that write is carried out"
        case .FP_TRACE_ANSWERED: "that write is answered" + dropped
        case .FP_TRACE_LOOKED_AT: "read by another command while suspect" + dropped
        case .FP_TRACE_LOOKED_AROUND: "another command read keys that it does not name: no suspect copy is left"
        case .FP_TRACE_FLUSHED: "everything is dropped"
        case .FP_TRACE_EVICTED: "evicted: the copy made room for another"
        case .FP_TRACE_EXPIRED: "expired: the upstream's time to live is over"
        case .FP_TRACE_STALE_OVER: "dropped: past its ttl for longer than it may be served so"
        case .FP_TRACE_LOST: "\(number) events more than could be noted"
        }
    }

    private var dropped: String { number > 0 ? ": the copy is dropped" : "; there was no copy" }
}
