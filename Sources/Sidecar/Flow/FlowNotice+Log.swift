import Logging

extension FlowNotice {
    /// A line for people. The control thread.
    func write(to log: Logger, upstream: String) {
        switch self {
        case .up(let version, true, _):
            log.notice("upstream \(upstream) is connected, changes are tracked", metadata: ["version": "\(version)"])
        case .up(let version, false, let reason):
            log.warning(
                "upstream \(upstream) is connected without tracking: \(reason); entries live until their TTL",
                metadata: ["version": "\(version)"])
        case .lost(let reason):
            log.warning("upstream \(upstream) is lost: \(reason)")
        case .unreachable(let reason, let isServed):
            let cached = isServed ? "what is cached is served" : "it may be there, so what is cached is not served"
            log.warning("upstream \(upstream) is unreachable: \(reason); \(cached)")
        case .refused(let reason):
            log.warning("upstream \(upstream) refuses the sidecar: \(reason)")
        case .untrusted(let reason):
            log.error("upstream \(upstream) and the sidecar do not agree on TLS: \(reason)")
        case .suspended:
            log.warning("upstream \(upstream) has not answered for 500 ms")
        case .resumed:
            log.notice("upstream \(upstream) answers again")
        case .learnt(let commands):
            if commands > 0 { log.info("\(commands) commands learnt from upstream \(upstream)") }
        case .writesRefused(let reason, let retryMs):
            log.warning(
                "the upstream refuses acknowledged writes for now: \(reason); each is tried again for \(TimeSpan.show(retryMs))"
            )
        case .deadLetters(let count, let last):
            log.error(
                "\(count == 1 ? "an acknowledged write is" : "\(count) acknowledged writes are") given up, the upstream refuses\(count == 1 ? " it" : ", the last"): \(last.reason)",
                metadata: ["key": "\(last.key)"])
        case .bypassed(true): log.warning("bypass is on: nothing is served from the cache")
        case .bypassed(false): log.notice("bypass is off: the cache serves again")
        case .flushedByControl: log.warning("the control key says flush: nothing is cached any more")
        case .controlUnread(let reason):
            log.warning(
                "control_key cannot be read at the upstream: what it last said holds here until it can; it is tried every 10 s: \(reason)"
            )
        case .prefetching(let status) where status.fetched == 0: log.notice("prefetch has begun")
        case .prefetching(let status):
            log.notice(
                "prefetch goes on: \(status.fetched) of \(status.names) keys so far",
                metadata: ["pages": "\(status.pages)"])
        case .prefetched(let status):
            let how =
                switch status.state {
                case .full: ", its share of local_memory is used up"
                case .timedOut: ", its timeout has passed"
                default: ""
                }
            var metadata: Logger.Metadata = ["pages": "\(status.pages)", "errors": "\(status.errors)"]
            if status.errors > 0 { metadata["last_error"] = "\(status.lastError)" }
            if status.notKept > 0 { metadata["not_kept"] = "\(status.notKept)" }
            log.notice(
                "prefetch has fetched \(status.fetched) of \(status.names) keys in \(TimeSpan.show(status.milliseconds))\(how)",
                metadata: metadata)
        case .journalHangs(let seconds):
            log.error(
                "the journal's disk has not answered for \(seconds) s and is not waited for: its files stay, and what they have is sent by the next process"
            )
        case .journalRestored(let writes):
            log.notice("\(writes) writes that were acknowledged before the start are in the journal and are sent now")
        case .journalTorn(let bytes):
            log.warning(
                "the journal's last \(bytes) bytes were not written whole, as a crash leaves them, and are cut; unless the node crashed nobody was told of them"
            )
        case .journalEmpty(let path):
            log.warning(
                "\(path) is empty: a crash leaves a file so that had just been begun; if there was none, what it told is lost"
            )
        case .journalDamaged(let path, let kept):
            log.error(
                "\(path) is damaged: acknowledged writes may be missing, and some that were carried out may be sent again; what can be read is restored, \(kept)"
            )
        case .journalFailed(let reason):
            log.error(
                "\(reason); until it can be written again, writes are acknowledged when the upstream has carried them out"
            )
        case .journalIsBack:
            log.notice("the journal is written again")
        case .journalStuck(let reason):
            log.error(
                "\(reason); clients that wait for it to go wait \(Journaling.clearNs / 1_000_000_000) s at most, it is tried every second"
            )
        case .journalLeft(let reason):
            log.error(
                "\(reason); the files of this directory stay and clients go on. What they hold has been carried out, but a start that finds them sends it again, which may overwrite newer values: see to the disk while this process runs, which then removes them, or remove *.journal there before the next start"
            )
        case .drained(let unwritten, let isJournaled, let givenUp):
            if unwritten > 0, isJournaled {
                log.warning(
                    "\(unwritten) acknowledged writes have not been carried out within drain_timeout; the journal has them, and the next start sends them"
                )
            } else if unwritten > 0 {
                log.error(
                    "\(unwritten) acknowledged writes are lost: the upstream did not take them within drain_timeout")
            } else if givenUp > 0 {
                log.warning(
                    "every acknowledged write has been carried out upstream, but for \(givenUp) that the upstream refused and that were given up"
                )
            } else {
                log.notice("every acknowledged write has been carried out upstream")
            }
        case .turnedAway(let clients):
            log.warning(
                "clients turned away: \(clients.refused) refused at max_clients or for want of local_memory, \(clients.closed) closed that left too much unread for it"
            )
        }
    }
}
