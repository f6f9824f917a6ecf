/// ControlKey — a switch for the whole fleet: one key at the upstream (`ferrite:control`) that every sidecar watches.
///
///     SET ferrite:control bypass    nothing is served from any cache, until the key says otherwise or is deleted
///     SET ferrite:control flush     every cache is emptied, each time it is set
///
/// It is read when the tracked link comes up, registered like any copy, and read again when it is announced as changed: a
/// change acts one round trip later. Without tracking nothing announces it, and it does nothing.
///
/// A key that is left at flush empties nothing again when the link is made anew, just when the cache is needed; it does if it
/// said something else when last seen.
extension Flow {
    /// `isAnnounced`: what it says now has been set just then.
    mutating func askControl(isAnnounced: Bool) {
        guard tracked.isUp, tracked.tracking, !policy.controlKey.isEmpty else { return }
        if !policy.tracking.isBroadcast {
            orders.send(tracked.link, Wire.caching)
            owe(OwedReply(ticket: 0, sentNs: nowNs, awaited: .nothing, flags: []))
        }
        orders.send(tracked.link, Wire.get)
        policy.controlKey.withUnsafeBufferPointer { orders.sendBulk(tracked.link, $0) }
        let flags: OwedReply.Flags = isAnnounced ? .announced : []
        owe(OwedReply(ticket: 0, sentNs: nowNs, awaited: .control, flags: flags))
    }

    @inline(__always)
    func isControl(_ key: Bytes) -> Bool {
        key.count == policy.controlKey.count && key.elementsEqual(policy.controlKey)
    }

    mutating func heardControl(_ reply: Bytes, isAnnounced: Bool) {
        let word = Reply(reply).isError ? nil : Reply(reply).text
        setBypass(byFleet: word?.equals("bypass") ?? false)
        let saysFlush = word?.equals("flush") ?? false
        let isNews = isAnnounced || !controlSaidFlush
        if !Reply(reply).isError { controlSaidFlush = saysFlush }
        guard saysFlush, isNews else { return }
        orders.dropAll()
        notices.append(.flushedByControl)
        prefetch.begin(nowNs)
    }

    mutating func setBypass(byHand isOn: Bool) {
        isBypassedByHand = isOn
        publishBypass()
    }

    private mutating func setBypass(byFleet isOn: Bool) {
        isBypassedByFleet = isOn
        publishBypass()
    }

    private mutating func publishBypass() {
        let isOn = isBypassedByHand || isBypassedByFleet
        guard isOn != isBypassed else { return }
        isBypassed = isOn
        orders.bypass(isOn)
        notices.append(.bypassed(isOn))
    }
}
