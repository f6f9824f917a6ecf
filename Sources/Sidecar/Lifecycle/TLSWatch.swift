import Glibc
import Logging

/// TLSWatch — reads the files of upstream TLS again when they have changed. A file that is no good changes nothing: what was
/// read before goes on, and the log says so once.
struct TLSWatch: Sendable {
    static let period = Duration.seconds(2)

    private let config: SidecarConfig
    private let log: Logger
    private let first: [Look]

    /// nil: there is no file to look at. To be made before the files are read.
    init?(_ config: SidecarConfig, log: Logger) {
        guard config.upstream.isTLS, !Self.paths(config).isEmpty else { return nil }
        self.config = config
        self.log = log
        first = Self.look(config)
    }

    func run(_ loop: LoopHandle) async {
        var used = first
        var told: TLSMistake?
        while true {
            try? await Task.sleep(for: Self.period)
            let now = Self.look(config)
            guard now != used else { continue }
            do throws(TLSMistake) {
                loop.speakTLS(try TLSContext(config))
                used = now
                told = nil
                log.notice("the files of upstream TLS have changed: connections made from now on use what they hold")
            } catch {
                /* Of two files one may have been replaced so far: they are read again until they are good. */
                if told != error {
                    log.error(
                        "the files of upstream TLS have changed and are no good, so that what was read before is used on: \(error.key): \(error.what); expected \(error.expected)"
                    )
                }
                told = error
            }
        }
    }

    private static func paths(_ config: SidecarConfig) -> [String] {
        [config.tls.caCertFile, config.tls.certFile, config.tls.keyFile].filter { !$0.isEmpty }
    }

    /// What tells one state of a file from another: a Secret's is a link whose end is another file afterwards.
    private struct Look: Equatable {
        var device: UInt64 = 0
        var inode: UInt64 = 0
        var size: Int64 = 0
        var seconds: Int64 = 0
        var nanoseconds: Int64 = 0
        /// A file that was written in place may look the same but for this.
        var changedSeconds: Int64 = 0
        var changedNanoseconds: Int64 = 0
    }

    private static func look(_ config: SidecarConfig) -> [Look] {
        paths(config).map { path in
            var facts = stat()
            guard stat(path, &facts) == 0 else { return Look() }
            return Look(
                device: UInt64(facts.st_dev), inode: UInt64(facts.st_ino), size: Int64(facts.st_size),
                seconds: Int64(facts.st_mtim.tv_sec), nanoseconds: Int64(facts.st_mtim.tv_nsec),
                changedSeconds: Int64(facts.st_ctim.tv_sec), changedNanoseconds: Int64(facts.st_ctim.tv_nsec))
        }
    }
}
