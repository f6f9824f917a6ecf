/// ControlKey — a switch for the whole fleet: one key at the upstream (`ferrite:control`) that every sidecar watches.
///
///     SET ferrite:control bypass    nothing is served from any cache, until the key says otherwise or is deleted
///     SET ferrite:control flush     every cache is emptied, each time it is set
///
/// It is read when the tracked link comes up, registered like any copy, and read again when it is announced as changed: a
/// change acts one round trip later. Without tracking nothing announces it, and it does nothing.
///
/// A key that is left at flush empties nothing again when the link is made anew, just when the cache is needed; it does if it
/// said something else when last seen. An error says nothing of the key: what it said before holds, and it is asked again.
struct ControlKeyState {
    static let askAgainNs: UInt64 = 10_000_000_000

    /// When last seen. A process begins with nothing to flush.
    var saidFlush = true
    /// The last answer was an error: it is asked again then.
    var askAgainAtNs: UInt64 = .max
    /// Whether what could not be read had been announced.
    var isAnnounced = false
    /// The error that the log has been told.
    var toldError = ""
}

extension Flow {
    /// With each of the heartbeat's PINGs.
    mutating func askControlAgain() {
        guard nowNs >= control.askAgainAtNs else { return }
        askControl(isAnnounced: control.isAnnounced)
    }

    /// `isAnnounced`: what it says now has been set just then.
    mutating func askControl(isAnnounced: Bool) {
        control.askAgainAtNs = .max
        guard tracked.isUp, !policy.controlKey.isEmpty else { return }
        /* Nobody would hear of its end. */
        guard tracked.tracking else { return setBypass(byFleet: false) }
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
        if let error = Reply(reply).errorText { return controlIsUnread(error, isAnnounced: isAnnounced) }
        control.isAnnounced = false
        control.toldError = ""
        let word = Reply(reply).text
        setBypass(byFleet: word?.equals("bypass") ?? false)
        let saysFlush = word?.equals("flush") ?? false
        let isNews = isAnnounced || !control.saidFlush
        control.saidFlush = saysFlush
        guard saysFlush, isNews else { return }
        orders.dropAll()
        notices.append(.flushedByControl)
        prefetch.begin(nowNs)
    }

    private mutating func controlIsUnread(_ error: String, isAnnounced: Bool) {
        control.askAgainAtNs = nowNs &+ ControlKeyState.askAgainNs
        control.isAnnounced = control.isAnnounced || isAnnounced
        guard error != control.toldError else { return }
        control.toldError = error
        notices.append(.controlUnread(reason: error))
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
