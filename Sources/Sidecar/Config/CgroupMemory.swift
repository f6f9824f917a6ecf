import Glibc

/// The memory that a container may use, and how much of it may be ours.
enum CgroupMemory {
    /// The smallest of the limits in the texts of memory.max (v2) or memory.limit_in_bytes (v1); nil without one.
    static func limit(texts: [String]) -> UInt64? {
        texts.compactMap { text -> UInt64? in
            let word = text.prefix { $0 != "\n" && $0 != " " }
            /* "max" in v2; v1 says "none" by a number near 2^63. */
            guard let bytes = UInt64(word), bytes < 1 << 60 else { return nil }
            return bytes
        }.min()
    }

    /// The kernel kills at the limit, and not all that it counts is ours to bound (page tables, the page cache of the
    /// binary): 16 MiB or 12% stay free, whichever is more.
    static func usable(limit: UInt64) -> UInt64 {
        let kept = max(16 << 20, limit / 100 * 12 + limit % 100 * 12 / 100)
        return limit > kept ? (limit - kept) & ~4095 : 0
    }

    /// For people.
    static func reason(limit: UInt64) -> String { "container limit of \(roughly(limit)), less max(16mb, 12%)" }
    /// Limits are rarely whole megabytes.
    static func roughly(_ bytes: UInt64) -> String {
        bytes < 1 << 20 ? ByteSize.show(bytes) : "\(bytes >> 20)mb"
    }

    /// Reads this process's limits, those of the groups around it included. Control thread: reads files.
    static func readLimitTexts() -> [String] {
        guard let groups = TextFile.read("/proc/self/cgroup", bytesMax: 65536) else { return [] }
        return limitFiles(groups: groups).compactMap { TextFile.read($0, bytesMax: 64) }
    }

    /// The files that may hold a limit, from the text of /proc/self/cgroup. In a container the group's path is often
    /// that of the host while the mount shows only our own: the mount's root is always asked too.
    static func limitFiles(groups: String) -> [String] {
        var files: [String] = []
        for line in groups.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3 else { continue }
            let (root, name): (String, String)
            if parts[0] == "0", parts[1].isEmpty {
                (root, name) = ("/sys/fs/cgroup", "memory.max")
            } else if parts[1].split(separator: ",").contains("memory") {
                (root, name) = ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            } else {
                continue
            }
            var path = parts[2].split(separator: "/")
            if path.contains("..") { path = [] }
            while true {
                files.append(([root[...]] + path + [name[...]]).joined(separator: "/"))
                if path.isEmpty { break }
                path.removeLast()
            }
        }
        return files
    }
}
