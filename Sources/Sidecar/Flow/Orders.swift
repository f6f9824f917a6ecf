/// What the flow may tell the fast path: the orders of CFastPath.h, one method each.
///
/// `Flow` is generic over it so that its decisions are read back in tests without a socket; in the product it is
/// specialised for `FastPath`, and an order is one C call.
protocol Orders {
    /// Begins to connect to a socket address; zero when there is no room for another link.
    func openLink(_ address: Bytes) -> LinkID
    func send(_ link: LinkID, _ bytes: Bytes)
    /// As "$<length>\r\n<bytes>\r\n".
    func sendBulk(_ link: LinkID, _ bytes: Bytes)
    /// An answer of the upstream took so long.
    func upstreamTook(ns: UInt64)
    /// Bytes that the kernel has not taken.
    func backlog(_ link: LinkID) -> Int
    /// While a part of a reply has come: when the last of it did; 0: nothing is in part.
    func arrivingNs(_ link: LinkID) -> UInt64
    func closeLink(_ link: LinkID)
    /// What the kernel still holds is not sent.
    func abortLink(_ link: LinkID)
    /// From now on it ends so whenever it ends, with the process too.
    func resetAtEnd(_ link: LinkID)
    /// Behind what is unsent the upstream sees an end of file.
    func finishLink(_ link: LinkID)

    /// An empty reply ends the slot without a byte. Delivered once the fence has passed.
    func answer(_ slot: SlotID, _ reply: Bytes, fromRESP3: Bool, fence: FenceID)
    /// An error of ours, for what was not sent or will not be answered.
    func answerError(_ slot: SlotID, _ error: Bytes)
    /// CLIENT REPLY OFF: behind the client's writes so far something is sent that will be answered, and it has been.
    func markSilent(_ client: ClientID)
    func settleSilent(_ client: ClientID)
    func answerMore(_ slot: SlotID, _ reply: Bytes, isFenced: Bool)
    func tell(_ client: ClientID, _ bytes: Bytes, fence: FenceID)
    /// This fence and all before it.
    func passFence(_ fence: FenceID)
    func pin(_ client: ClientID, _ link: LinkID)
    /// Nothing is held on its link: what it asks next is answered as by clients that have none. False: it has asked more
    /// by now, or may be in a transaction for all that the fast path knows.
    func unpin(_ client: ClientID) -> Bool
    /// The link that it had, and needed no more, is gone.
    func losePin(_ client: ClientID)
    func failPin(_ client: ClientID, _ error: Bytes)
    func closeClient(_ client: ClientID)
    func closeSlot(_ slot: SlotID)
    func hold(_ what: Hold)
    /// What commands for a shared link are answered with at once, since they cannot be sent; empty: they can.
    func refuse(_ error: Bytes)

    func arm(_ flight: FlightID, ttlMs: Int64, sentNs: UInt64, keep: Keep)
    func fill(_ flight: FlightID, _ reply: Bytes)
    /// Begins to fetch a key that nobody has asked for: a miss of the next turn.
    func fetch(_ key: Bytes) -> FetchedAhead
    func timeOut(_ flight: FlightID, _ error: Bytes)
    func fail(_ flight: FlightID, _ error: Bytes)
    /// Those that are under way take nobody else, and are not kept.
    func closeFlights()
    func drop(_ key: Bytes)
    func dropAll()
    /// Nothing is served from the store, nor kept.
    func bypass(_ isOn: Bool)
    /// `untilNs`: trusted no longer than that without a word to the contrary.
    func trust(epoch: UInt32, trusted: Bool, untilNs: UInt64, serveSuspect: Bool)
    /// How long a fetch takes further readers.
    func setJoinable(ms: UInt64)
    /// One hit in so many is compared with the upstream; 0: none.
    func setAudit(every: UInt64)
    func setRules(_ rules: [FetchRule])

    /// What is acknowledged and not carried out: waiting to be sent, and sent.
    func writesBehind() -> (queued: Int, flying: Int)
    /// Sends the oldest of them, until so many bytes are unsent on the link; returns how many.
    func sendWritesBehind(_ link: LinkID, count: Int, backlogMax: Int) -> Int
    /// The one whose reply comes next: its key, nil if it was replaced since, and when it was first refused for now (0: it was
    /// not).
    func writeBehindFlying() -> (key: Bytes?, refusedNs: UInt64)
    func writeBehindIs(_ outcome: WriteOutcome)
    /// Those that were sent are to be sent again.
    func unsendWritesBehind()
    /// No further one is acknowledged before it is carried out.
    func closeWriteBehind()

    /// A write of an earlier process, in the order in which they were acknowledged; false when it does not fit.
    func restoreWrite(place: UInt64, _ key: [UInt8], _ value: [UInt8], expireAtMs: UInt64) -> Bool
    /// From now on a write is acknowledged when it is in the journal. `next`: no record has this place yet.
    func journalOn(next: UInt64)
    /// What is to be written next; nil when there is nothing, or the last is not written yet.
    func takeJournal() -> JournalWork?
    func journalWritten()
    /// What is written no longer tells the truth: a record found no memory.
    var journalIsShort: Bool { get }
    func journalOff()
    /// While it is off: everything has been carried out, and there is no file.
    func journalGone()
    /// Who waits for an acknowledgement is closed.
    func forsakeJournal()

    func learnCommands(_ reply: Bytes) -> UInt32
    /// Lower-case name of a row of the command table, "client|id" for a subcommand's; nil past the end.
    func commandName(_ row: UInt16) -> String?

    /// What HELLO tells clients.
    func setUpstream(version: String, mode: String, role: String, protocolVersion: UInt8)

    /// Swift's own memory in the budget.
    func charge(_ bytes: Int)
    func release(_ bytes: Int)
    func measureBase()
    var clientCount: Int { get }
    /// With an error or without.
    var commandsAnswered: UInt64 { get }

    /// All metrics' values; `metricOffset` says which is which.
    func stats() -> [UInt64]
    func metricOffset(_ name: String, _ labels: String) -> Int?
}

extension Orders {
    @inline(__always)
    func send(_ link: LinkID, _ text: StaticString) {
        send(link, Bytes(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    func send(_ link: LinkID, _ bytes: [UInt8]) {
        bytes.withUnsafeBufferPointer { send(link, $0) }
    }
}
