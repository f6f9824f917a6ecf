@testable import Sidecar

/// Judge — compares answers with the truth. What it holds to is the promise of docs/coherence.md:
///
/// (1) once a client of the pod has the reply to a write, no later read in the pod returns an older value, and reads of a
///     key never go backwards in the pod;
/// (2) a read that was sent after a client of the pod has received anything from the upstream reflects at least what the
///     upstream had then;
/// (3) a read does not return what was replaced 1.5 s before it was sent, nor ever longer than its ttl before, unless the
///     upstream does not answer, and then no longer than stale_max more;
/// (4) commands of one client are ordered per key, and a read of several keys is one instant.
///
/// (1) for reads of every kind, (2) and the first part of (3) hold with tracking and while the upstream is reachable. What is said of own writes
/// holds always. Without the fence (2) does not hold, nor (1) for what a client with a link of its own has read.
extension World {
    /// Values as `read` returned them; nil for an error.
    func judge(_ values: [UInt64], _ keys: [Int], _ asked: Asked, _ client: SimClient) {
        if plan.isBehind { return judgeRegisters(values, keys, asked, client) }
        let pod = client.pod
        let isStrict = pod.laxNs < asked.atNs
        if !isStrict, keys.count > 1 {
            /* Each as of its last good link. */
            for place in keys.indices {
                var one = asked
                one.leastRead = [asked.leastRead[place]]
                one.leastServed = [asked.leastServed[place]]
                one.leastWritten = [asked.leastWritten[place]]
                one.flightsSinceNs = [asked.flightsSinceNs[place]]
                judge([values[place]], [keys[place]], one, client)
            }
            return
        }
        /* Nothing is served for longer than its ttl, nor what changed while a link was silent; a clock counts in
           milliseconds. */
        /* Who joins a fetch shares its deadline. */
        let sinceNs = min(asked.atNs, asked.flightsSinceNs.min() ?? asked.atNs)
        let isSlow = nowNs - sinceNs >= plan.config.readTimeoutMs * millisecond || pod.slowNs >= asked.atNs
        let staleMs = isSlow || !isStrict ? plan.staleMaxMs : 0
        let bound = (plan.ttlMaxMs + staleMs + 2) * millisecond
        let unheard = isStrict ? 1_502 * millisecond : .max
        var instants: Set<Int> = []
        let isFenced = isStrict && plan.config.fence
        var floor = isFenced ? asked.floor : 0
        for (place, key) in keys.enumerated() {
            floor = max(floor, max(asked.leastWritten[place], client.ownWritten[key]))
        }
        instants.insert(floor)
        /* Versions of each key that this may be. */
        var candidates: [[(from: Int, end: Int)]] = []
        for (place, key) in keys.enumerated() {
            var ranges: [(from: Int, end: Int)] = []
            let least =
                isFenced
                ? max(asked.leastRead[place], client.ownRead[key]) : laxLeast(asked, place, client.ownServed[key])
            let timeline = model.truth.timelines[key]
            for index in timeline.indices where timeline[index].value == values[place] {
                let end = model.truth.end(key, index)
                guard end > floor, timeline[index].from >= least else { continue }
                /* Past its expiry it must not be served, but for who joins a flight; a clock counts in milliseconds.
                   Without tracking a write between PTTL and GET goes unnoticed. */
                if isStrict, timeline[index].expiresNs != .max, timeline[index].value != 0,
                    timeline[index].expiresNs &+ 2 * millisecond < asked.flightsSinceNs[place]
                {
                    continue
                }
                let endNs = model.truth.endNs(key, index), sinceNs = asked.flightsSinceNs[place]
                if endNs < sinceNs, sinceNs - endNs > bound { continue }
                if endNs < asked.atNs, asked.atNs - endNs > unheard { continue }
                ranges.append((timeline[index].from, end))
                instants.insert(max(timeline[index].from, floor))
            }
            candidates.append(ranges)
        }
        for instant in instants.sorted() {
            let found = candidates.map { ranges in ranges.first { $0.from <= instant && instant < $0.end } }
            let whole = found.compactMap { $0 }
            if whole.count < found.count { continue }
            for (span, key) in zip(whole, keys) {
                /* What came by a link of its own may be newer than the cache is when that is given back. */
                if !plan.config.fence, client.hasState { continue }
                client.ownRead[key] = max(client.ownRead[key], span.from)
                if asked.kind.isOfPlainCommand {
                    client.ownServed[key] = max(client.ownServed[key], span.from)
                }
                pod.read[key] = max(pod.read[key], span.from)
                if asked.kind.isOfPlainCommand { pod.served[key] = max(pod.served[key], span.from) }
            }
            return
        }
        var story = ""
        for (place, key) in keys.enumerated() {
            let timeline = model.truth.timelines[key]
            let shown = timeline.suffix(6).map {
                "\(shorten($0.value)) from #\($0.from)" + ($0.expiresNs == .max ? "" : " until \(time($0.expiresNs))")
            }
            let least = max(asked.leastRead[place], client.ownRead[key])
            let own = max(asked.leastWritten[place], client.ownWritten[key])
            story +=
                "\n    k\(key): got \(shorten(values[place])); the upstream had \(shown.joined(separator: ", "));"
                + " read before: #\(least), own write: #\(own)"
        }
        fail(
            "\(client.name) sent \(asked.text) at \(time(asked.atNs)), when the pod had been told of #\(asked.floor)"
                + "\(isStrict ? "" : " (which does not count now)"): an older value came" + story)
    }

    /// While the upstream is unreachable, and without the fence, reads go no more backwards, but for what pinned clients
    /// and scripts have told.
    private func laxLeast(_ asked: Asked, _ place: Int, _ ownServed: Int) -> Int {
        guard plan.isAlwaysTracked, case .read = asked.kind else { return 0 }
        return max(asked.leastServed[place], ownServed)
    }

    /// A reply has come that the upstream gave when it carried out `token`.
    func learn(token: Int, keys: [Int], _ client: SimClient, _ asked: Asked) {
        let number = model.truth.execution(of: token)
        guard number > 0 else {
            return fail("\(client.name) got an answer to \(asked.text), which the upstream has never carried out")
        }
        learn(number, keys: keys, client)
    }

    /// The upstream's command of this number has written these keys, and was answered.
    func learn(_ number: Int, keys: [Int], _ client: SimClient) {
        client.pod.floor = max(client.pod.floor, number)
        for key in keys {
            client.pod.written[key] = max(client.pod.written[key], number)
            client.ownWritten[key] = max(client.ownWritten[key], number)
        }
    }

    func shorten(_ hash: UInt64) -> String { hash == 0 ? "nil" : valueNames[hash] ?? "?\(hash % 10_000)" }
    func time(_ timeNs: UInt64) -> String { "\(Double((timeNs - second) / 1_000) / 1_000) ms" }
}
