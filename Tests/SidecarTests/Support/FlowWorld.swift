import CFastPath

@testable import Sidecar

/// An event as a test writes it.
struct TestEvent {
    var event = fp_event()
    var bytes: [UInt8] = []

    init(_ kind: fp_event_kind, _ text: String = "", _ change: (inout fp_event) -> Void = { _ in }) {
        event.kind = kind
        event.command = UInt16(FP_COMMAND_UNKNOWN)
        event.command_kind = 5 /* COMMAND_STATE */
        event.protocol = 2
        bytes = Array(text.utf8)
        event.type = bytes.first ?? 0
        change(&event)
    }

    static func miss(_ flight: UInt64, _ key: String) -> TestEvent {
        TestEvent(.FP_EVENT_MISS, key) { $0.ticket = flight }
    }
    static func mgetKey(_ flight: UInt64, _ key: String) -> TestEvent {
        TestEvent(.FP_EVENT_MGET_KEY, key) { $0.ticket = flight }
    }
    static func mget(_ leader: UInt64, _ words: String...) -> TestEvent {
        TestEvent(.FP_EVENT_MGET, request(words)) { $0.ticket = leader }
    }
    /// A plain read on the tracked link, or on another.
    static func read(_ slot: UInt64, _ words: String..., onRESP2: Bool = false) -> TestEvent {
        TestEvent(.FP_EVENT_COMMAND, request(words)) {
            $0.ticket = slot
            $0.lane = onRESP2 ? .FP_LANE_RESP2 : .FP_LANE_TRACKED
            $0.command_kind = 2 /* COMMAND_PASS */
        }
    }
    static func write(_ slot: UInt64, _ words: String..., onRESP2: Bool = false) -> TestEvent {
        TestEvent(.FP_EVENT_COMMAND, request(words)) {
            $0.ticket = slot
            $0.lane = onRESP2 ? .FP_LANE_RESP2 : .FP_LANE_TRACKED
            $0.command_kind = 3 /* COMMAND_WRITE */
        }
    }
    /// On the tracked link, and may write keys that nobody can name.
    static func script(_ slot: UInt64, _ words: String...) -> TestEvent {
        TestEvent(.FP_EVENT_COMMAND, request(words)) {
            $0.ticket = slot
            $0.command_kind = 4 /* COMMAND_UNKEYED */
        }
    }
    static func pinned(_ slot: UInt64, link: UInt64, _ words: String...) -> TestEvent {
        TestEvent(.FP_EVENT_COMMAND, request(words)) {
            $0.ticket = slot
            $0.lane = .FP_LANE_PINNED
            $0.link = link
            $0.command = RecordedOrders.row(words[0].lowercased())
        }
    }
    /// "CLIENT|TRACKING ON", as the command table names it.
    static func pinned(_ slot: UInt64, link: UInt64, line: String) -> TestEvent {
        let words = line.split { $0 == " " || $0 == "|" }.map(String.init)
        return TestEvent(.FP_EVENT_COMMAND, request(words)) {
            $0.ticket = slot
            $0.lane = .FP_LANE_PINNED
            $0.link = link
            $0.command = RecordedOrders.row(line.prefix { $0 != " " }.lowercased())
        }
    }
    static func ask(_ slot: UInt64, _ words: String..., resp3: Bool = false) -> TestEvent {
        TestEvent(.FP_EVENT_ASK, request(words)) {
            $0.ticket = slot
            $0.protocol = resp3 ? 3 : 2
        }
    }
    static func pin(
        client: UInt64, number: UInt64 = 0, resp3: Bool = false, name: String = "", link: UInt64 = 0
    ) -> TestEvent {
        TestEvent(.FP_EVENT_PIN, name) {
            $0.client = client
            $0.link = link
            $0.ticket = number
            $0.protocol = resp3 ? 3 : 2
        }
    }
    static func gone(client: UInt64, link: UInt64 = 0) -> TestEvent {
        TestEvent(.FP_EVENT_CLIENT_GONE) {
            $0.client = client
            $0.link = link
        }
    }
    static func ended(client: UInt64, link: UInt64) -> TestEvent {
        TestEvent(.FP_EVENT_CLIENT_END) {
            $0.client = client
            $0.link = link
        }
    }
    static func reply(_ link: UInt64, _ text: String) -> TestEvent {
        TestEvent(.FP_EVENT_REPLY, wire(text)) { $0.link = link }
    }
    static func push(_ link: UInt64, _ text: String) -> TestEvent {
        TestEvent(.FP_EVENT_PUSH, wire(text)) { $0.link = link }
    }
    static func up(_ link: UInt64) -> TestEvent { TestEvent(.FP_EVENT_LINK_UP) { $0.link = link } }
    static func down(_ link: UInt64, _ error: Int32 = 0) -> TestEvent {
        TestEvent(.FP_EVENT_LINK_DOWN) {
            $0.link = link
            $0.error = error
        }
    }

    private static func request(_ words: [String]) -> String {
        "*\(words.count)\r\n" + words.map { "$\($0.utf8.count)\r\n\($0)\r\n" }.joined()
    }
}

/// "*2|$1|a|:1" as it stands on the wire.
func wire(_ text: String) -> String { text.split(on: "|").joined(separator: "\r\n") + "\r\n" }

/// A flow with recorded orders, at a time of the test's choosing.
final class FlowWorld {
    let orders = RecordedOrders()
    var flow: Flow<RecordedOrders>
    private(set) var nowMs: UInt64 = 1_000

    /* A flow cannot be copied, which #expect would do to look into it. */
    var status: UpstreamStatus { flow.status }
    var deadlineMs: UInt64 { flow.deadlineNs / 1_000_000 }
    var wantsAddresses: Bool { flow.wantsAddresses }
    var isFinished: Bool { flow.isFinished }
    var isConnecting: Bool { flow.isConnecting }
    var unfetched: HotNames { flow.prefetch.unfetched }
    var pinCount: Int { flow.pins.count }

    static func policy(_ change: (inout SidecarConfig) -> Void = { _ in }) -> FlowPolicy {
        var config = SidecarConfig()
        config.upstream = UpstreamAddress(host: "up", port: 1)
        config.maxClients = 4
        config.fence = false
        config.controlKey = ""
        change(&config)
        return FlowPolicy(config, networkName: "epoll", seed: 1)
    }

    init(_ policy: FlowPolicy = FlowWorld.policy()) {
        flow = Flow(orders: orders, policy: policy, nowNs: 1_000_000_000)
    }

    /// A world whose tracked link, number 1, is up.
    static func connected(
        _ policy: FlowPolicy = FlowWorld.policy(), hello: String = FlowWorld.hello, tracking: String = "+OK"
    ) -> FlowWorld {
        let world = FlowWorld(policy)
        world.connect(link: 1, hello: hello, tracking: tracking)
        _ = world.orders.take()
        return world
    }

    static let hello = "%2|$5|proto|:3|$4|role|$6|master"

    func connect(link: LinkID, hello: String = FlowWorld.hello, tracking: String = "+OK", run: String = "abc1234") {
        resolve()
        turn(.up(link))
        let information = "# Server\r\nredis_version:7.0.15\r\nrun_id:\(run)"
        turn(
            .reply(link, hello), .reply(link, tracking), .reply(link, "$\(information.utf8.count)|\(information)"),
            .reply(link, "+PONG"))
        if flow.tracked.owed.first?.pointee.awaited == .commands { turn(.reply(link, "*0")) }
    }

    func resolve(_ resolution: Resolution = .addresses([Array("addr".utf8)])) {
        guard flow.wantsAddresses else { return }
        flow.wantsAddresses = false
        flow.resolved(resolution, nowNs: nowMs * 1_000_000)
    }

    @discardableResult
    func turn(_ events: TestEvent...) -> [String] {
        let arena = events.map { event -> UnsafeMutablePointer<UInt8> in
            let bytes = UnsafeMutablePointer<UInt8>.allocate(capacity: event.bytes.count + 1)
            bytes.initialize(from: event.bytes, count: event.bytes.count)
            return bytes
        }
        defer { for bytes in arena { bytes.deallocate() } }
        let raw = zip(events, arena).map { event, bytes in
            var raw = event.event
            raw.bytes = UnsafePointer(bytes)
            raw.length = UInt32(event.bytes.count)
            return raw
        }
        raw.withUnsafeBufferPointer { raw in
            flow.handle(
                Batch(fp_batch(events: raw.baseAddress, count: UInt32(raw.count), now_ns: nowMs * 1_000_000)))
        }
        return orders.take()
    }

    /// Time passes without a turn.
    func sleep(ms: UInt64) { nowMs += ms }

    /// By hand; what was ordered.
    func flush() -> [String] {
        flow.flush(nowMs * 1_000_000)
        return orders.take()
    }

    /// By hand.
    func prefetch(_ pattern: String) -> PrefetchAnswer { flow.beginPrefetch(Array(pattern.utf8), nowMs * 1_000_000) }

    func journalWork() -> JournalWork? { flow.nextJournalWork() }

    /// What was ordered.
    func journalDid(_ outcome: JournalOutcome) -> [String] {
        flow.journalDid(outcome, nowNs: nowMs * 1_000_000)
        return orders.take()
    }

    /// Lets time pass, with a turn at each deadline as the loop would have it; what was ordered meanwhile.
    func pass(ms: UInt64) -> [String] {
        let end = nowMs + ms
        var ordered: [String] = []
        while flow.deadlineNs <= end * 1_000_000 {
            nowMs = max(nowMs, (flow.deadlineNs + 999_999) / 1_000_000)
            ordered += turn()
        }
        nowMs = end
        return ordered + turn()
    }
}
