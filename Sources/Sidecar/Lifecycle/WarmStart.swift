import Glibc
import Logging

/// WarmStart — the names of the hottest keys, written to a file now and then and when the process ends, and fetched first by
/// the next.
///
///     FERRITE WARM 1
///     6 user:1
///
/// A line a name: its length, a blank, its bytes. Written beside the file and renamed, so that it is always whole. Names only:
/// no value leaves memory. A file that begins otherwise is somebody else's, and is left as it is.
struct WarmStart: Sendable {
    static let head = Array("FERRITE WARM 1\n".utf8)
    static let period = Duration.seconds(60)
    static let gatherMax = Duration.milliseconds(500)

    let path: String
    let log: Logger

    /// What an earlier process has left; nothing if there is no file, or none of ours.
    func read() -> HotNames {
        guard isOurs() else { return HotNames() }
        do throws(TextFile.Failure) {
            let bytes = try TextFile.bytes(path, bytesMax: 2 * HotNames.bytesMax)
            guard let names = Self.parse(bytes) else {
                if !bytes.isEmpty { log.warning("warm_start: \(path) is damaged: it is not used, and written anew") }
                return HotNames()
            }
            return names
        } catch {
            if error != .system(ENOENT) { log.warning("warm_start: \(path) cannot be read: \(error.sentence)") }
            return HotNames()
        }
    }

    /// Whether it may be replaced: it is not there, is empty, or begins as ours do. Says in the log why not.
    private func isOurs() -> Bool {
        /* A pipe would keep the open waiting. */
        let fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard fd >= 0 else {
            if errno == ENOENT { return true }
            log.warning(
                "warm_start: \(path) cannot be read, so it is not replaced: \(String(cString: strerror(errno)))")
            return false
        }
        defer { close(fd) }
        var facts = stat()
        var bytes = [UInt8](repeating: 0, count: Self.head.count)
        let isFile = fstat(fd, &facts) == 0 && facts.st_mode & S_IFMT == S_IFREG
        let count = isFile ? Glibc.read(fd, &bytes, bytes.count) : -1
        if count == 0 || (count > 0 && bytes[..<count] == Self.head[...]) { return true }
        log.warning(
            "\(path) is no file of warm_start: it is neither used nor replaced, and the hottest keys are not noted; remove it, or name another file"
        )
        return false
    }

    static func parse(_ bytes: [UInt8]) -> HotNames? {
        guard bytes.starts(with: head) else { return nil }
        var names = HotNames()
        var at = head.count
        while at < bytes.count {
            var length = 0
            let start = at
            while at < bytes.count, at - start < 6, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[at]) {
                length = length * 10 + Int(bytes[at] - UInt8(ascii: "0"))
                at += 1
            }
            guard at > start, at + length + 1 < bytes.count, bytes[at] == UInt8(ascii: " "),
                bytes[at + 1 + length] == UInt8(ascii: "\n")
            else { return nil }
            names.append(bytes[at + 1..<at + 1 + length])
            at += length + 2
        }
        return names
    }

    static func text(_ names: HotNames) -> [UInt8] {
        var bytes = head
        for place in 0..<names.count {
            bytes += Array("\(names[place].count) ".utf8) + names[place] + [UInt8(ascii: "\n")]
        }
        return bytes
    }

    /// Nothing when there is none: an empty cache says nothing of what is hot. A control thread.
    func write(_ names: HotNames) {
        guard !names.isEmpty, isOurs() else { return }
        var template = Array((path + ".XXXXXX").utf8CString)
        let fd = template.withUnsafeMutableBufferPointer { buffer in buffer.baseAddress.map { mkstemp($0) } ?? -1 }
        let beside = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        guard fd >= 0 else { return complain("making a file beside \(path)", nil) }
        _ = fcntl(fd, F_SETFD, FD_CLOEXEC)
        defer { close(fd) }
        let bytes = Self.text(names)
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes { Glibc.write(fd, $0.baseAddress.map { $0 + done }, bytes.count - done) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return complain("writing \(beside)", beside) }
            done += count
        }
        guard fsync(fd) == 0 else { return complain("writing \(beside)", beside) }
        guard rename(beside, path) == 0 else { return complain("renaming \(beside)", beside) }
    }

    private func complain(_ what: String, _ leftover: String?) {
        log.warning("warm_start: \(what): \(String(cString: strerror(errno)))")
        if let leftover { unlink(leftover) }
    }

    /// What is hot when the drain begins; nil if that takes so long to gather that clients would wait for it.
    func lastNames(_ loop: LoopHandle) async -> HotNames? {
        let names = await withTaskGroup(of: HotNames?.self) { group in
            defer { group.cancelAll() }
            group.addTask { await loop.hottestNames() }
            group.addTask {
                try? await Task.sleep(for: Self.gatherMax)
                return nil
            }
            return await group.next() ?? nil
        }
        if names == nil {
            log.warning("warm_start: gathering the hottest keys takes too long: what was noted before stays")
        }
        return names
    }

    /// For as long as the loop runs.
    func run(_ loop: LoopHandle) async {
        while !Task.isCancelled {
            try? await Task.sleep(for: Self.period)
            if !Task.isCancelled { write(await loop.hottestNames()) }
        }
    }
}
