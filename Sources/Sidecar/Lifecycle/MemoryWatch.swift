import Logging

/// MemoryWatch — follows the container's memory limit, which Kubernetes may change while it runs (in-place resize):
/// local_memory is again what it would be had the process started with it.
struct MemoryWatch: Sendable {
    static let period = Duration.seconds(5)

    private let resolved: ResolvedConfig
    private let log: Logger

    init(_ resolved: ResolvedConfig, log: Logger) {
        self.resolved = resolved
        self.log = log
    }

    func run(_ loop: LoopHandle) async {
        var seen = CgroupMemory.limit(texts: CgroupMemory.readLimitTexts())
        var bytes = resolved.config.localMemory
        while true {
            try? await Task.sleep(for: Self.period)
            let limit = CgroupMemory.limit(texts: CgroupMemory.readLimitTexts())
            guard limit != seen else { continue }
            seen = limit
            let wanted = Self.wanted(limit: limit, given: resolved.localMemoryGiven, now: bytes)
            if wanted == bytes { continue }
            guard let reached = await loop.resize(from: bytes, to: wanted) else { return }
            bytes = reached
            let reason = limit.map { CgroupMemory.reason(limit: $0) } ?? "no container limit any more"
            log.notice("local_memory is \(CgroupMemory.roughly(bytes)) now: \(reason)")
            if bytes < wanted {
                log.warning("more than \(CgroupMemory.roughly(bytes)) of local_memory can be had after a restart only")
            }
            if let limit, CgroupMemory.usable(limit: limit) < ConfigKey.localMemoryMin {
                log.error(
                    "the container's memory limit of \(CgroupMemory.roughly(limit)) is less than the 48Mi that the sidecar needs: the kernel may kill it"
                )
            }
        }
    }

    /// `given`: what the configuration asks for, if it does; `now`: what it is.
    static func wanted(limit: UInt64?, given: UInt64?, now: UInt64) -> UInt64 {
        guard let limit else { return given ?? now }
        let usable = max(CgroupMemory.usable(limit: limit), ConfigKey.localMemoryMin)
        return min(given ?? ConfigKey.localMemoryMax, usable)
    }
}
