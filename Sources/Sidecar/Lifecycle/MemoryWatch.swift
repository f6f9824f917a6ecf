import Logging

/// MemoryWatch — follows the container's memory limit, which Kubernetes may change while it runs (in-place resize):
/// local_memory is again what it would be had the process started with it.
struct MemoryWatch: Sendable {
    static let period = Duration.seconds(2)

    private let resolved: ResolvedConfig
    private let log: Logger
    /// How many limits there were to be read.
    private let readableAtStart = CgroupMemory.readLimitTexts().count

    init(_ resolved: ResolvedConfig, log: Logger) {
        self.resolved = resolved
        self.log = log
    }

    func run(_ loop: LoopHandle) async {
        var bytes = resolved.config.localMemory
        var readable = readableAtStart
        var told: UInt64?
        while true {
            try? await Task.sleep(for: Self.period)
            let texts = CgroupMemory.readLimitTexts()
            /* What cannot be read just now is no limit that has gone. */
            guard texts.count >= readable else { continue }
            readable = texts.count
            let limit = CgroupMemory.limit(texts: texts)
            let wanted = Self.wanted(limit: limit, given: resolved.localMemoryGiven)
            defer { told = wanted }
            if told != wanted, let limit, CgroupMemory.usable(limit: limit) < ConfigKey.localMemoryMin {
                log.error(
                    "the container's memory limit of \(CgroupMemory.roughly(limit)) is less than the 48Mi that the sidecar needs: the kernel may kill it"
                )
            }
            if wanted == bytes { continue }
            guard let reached = await loop.resize(from: bytes, to: wanted) else { return }
            if reached != bytes {
                let reason = limit.map { CgroupMemory.reason(limit: $0) } ?? "there is no container limit"
                log.notice("local_memory is \(CgroupMemory.roughly(reached)) now: \(reason)")
            }
            bytes = reached
            if told != wanted, bytes < wanted {
                log.warning("more than \(CgroupMemory.roughly(bytes)) of local_memory can be had after a restart only")
            } else if told != wanted, bytes > wanted {
                log.warning(
                    "what is held beside the cache (acknowledged writes, clients) does not fit into \(CgroupMemory.roughly(wanted)): it is tried again every \(Self.period.components.seconds) s"
                )
            }
        }
    }

    /// What it would be, had the process started now. `given`: what the configuration asks for, if it does.
    static func wanted(limit: UInt64?, given: UInt64?) -> UInt64 {
        guard let limit else { return given ?? SidecarConfig().localMemory }
        let usable = max(CgroupMemory.usable(limit: limit), ConfigKey.localMemoryMin)
        return min(given ?? ConfigKey.localMemoryMax, usable)
    }
}
