import Glibc

/// Journal — the directory of files in which acknowledged writes survive the process.
///
///     0000000001.journal   all that it tells of is done: of no use, removed when those before it are
///     0000000002.journal   …
///     0000000003.journal   is written to; at 16 MiB a new one is begun
///
/// Later files tell that the writes of earlier ones are done, so files go in their order. When they grow to more than
/// `bytesMax` all the same (keys written again and again while the upstream is away), what is still to be carried out is
/// copied into a new one and the others are removed. One process at a time: the directory is locked.
///
/// It waits for the disk: not for the loop thread, but before the loop runs.
final class Journal {
    static let suffix = ".journal"
    static let fileBytesMax = 16 << 20
    /// Of a file; none comes so far, and there is room for those behind it.
    static let numberMax = UInt64.max / 2
    /// Of unsynced bytes: the kernel charges its pages to us.
    static let dirtyBytesMax = 1 << 20
    /// Copies of damaged files of one number.
    private static let damagedMax = 100
    /// Of a frame when what is still to be carried out is copied.
    private static let copyBytes = 1 << 20

    private let path: String
    private let fsync: SidecarConfig.JournalFsync
    private let bytesMax: Int
    private let fileBytesMax: Int
    /// Wall clock minus the engine's, in ms.
    private let clockMs: @Sendable () -> Int64
    private let directory: Int32
    /// The last is written to, unless it is of an earlier process.
    private var files: [JournalRemains.File]
    /// Among these, of earlier processes: the log has told of them.
    private let damaged: [String]
    private var mayAppend = false
    /// Files have gone, and the disk may not know of it.
    private var hasRemoved = false
    private var lastNumber: UInt64
    private var dirtyBytes = 0
    private(set) var status = JournalStatus()

    /// Makes the directory, locks it, and reads what earlier processes have left.
    init(
        _ path: String, fsync: SidecarConfig.JournalFsync, bytesMax: Int, fileBytesMax: Int = Journal.fileBytesMax,
        clockMs: @escaping @Sendable () -> Int64
    ) throws(JournalFailure) {
        self.path = path
        self.fsync = fsync
        self.bytesMax = bytesMax
        self.fileBytesMax = fileBytesMax
        self.clockMs = clockMs
        directory = try Self.lock(path)
        do throws(JournalFailure) {
            remains = try JournalRemains(directory: path)
        } catch {
            Self.unlock(directory)
            throw error
        }
        files = remains?.files ?? []
        damaged = remains?.damaged ?? []
        lastNumber = files.last?.number ?? 0
        status.bytes = files.reduce(0) { $0 + $1.file.bytes }
    }

    deinit { Self.unlock(directory) }

    /// What earlier processes have left; forgotten with the first write.
    private(set) var remains: JournalRemains?

    func noteRestored(_ writes: Int) {
        status.isOn = true
        status.restored = UInt64(writes)
    }

    func noteFailure() { status.failures += 1 }

    /// Another name for it, which is not removed with the file; returns that. Nil: `errno` says why there is none.
    func keepDamaged(_ path: String) -> String? {
        var file = stat()
        guard stat(path, &file) == 0 else { return nil }
        let plain = path.dropLast(Self.suffix.count) + ".damaged"
        for number in 1...Self.damagedMax {
            let kept = number == 1 ? String(plain) : "\(plain).\(number)"
            if link(path, kept) == 0 { return kept }
            var other = stat()
            /* That of an earlier start, or of another file that had this number before. */
            guard errno == EEXIST, stat(kept, &other) == 0 else { return nil }
            if other.st_ino == file.st_ino { return kept }
        }
        errno = EEXIST
        return nil
    }

    private static func lock(_ path: String) throws(JournalFailure) -> Int32 {
        if mkdir(path, 0o700) == 0 {
            syncName(path)
        } else if errno != EEXIST {
            throw JournalFailure(doing: "making the directory \(path)")
        }
        let fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard fd >= 0 else { throw JournalFailure(doing: "opening the directory \(path)") }
        guard flock(fd, LOCK_EX | LOCK_NB) == 0 else {
            close(fd)
            throw JournalFailure("journal: another process uses \(path); every sidecar needs a directory of its own")
        }
        return fd
    }

    /* As far as the directory above lets us: what is in one that has gone has gone too. */
    private static func syncName(_ path: String) {
        let parent = open(path + "/..", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard parent >= 0 else { return }
        Glibc.fsync(parent)
        close(parent)
    }

    /* Also from a copy of the descriptor: a child that is being started has one until it runs its program. */
    private static func unlock(_ fd: Int32) {
        flock(fd, LOCK_UN)
        close(fd)
    }

    static func file(_ directory: String, _ number: UInt64) -> String {
        let digits = String(number)
        return directory + "/" + String(repeating: "0", count: max(0, 10 - digits.count)) + digits + suffix
    }

    // MARK: writing

    /// Appends a batch. With `always` it is on the disk when this returns, else the kernel has it.
    func append(_ records: UnsafeRawBufferPointer, oldest: UInt64, next: UInt64) throws(JournalFailure) {
        remains = nil
        try release(oldest)
        if !mayAppend || files[files.count - 1].file.bytes >= fileBytesMax { try begin() }
        try append(records, next)
        status.batches += 1
        if fsync == .always || dirtyBytes >= Self.dirtyBytesMax { try sync() }
    }

    private func append(_ records: UnsafeRawBufferPointer, _ next: UInt64) throws(JournalFailure) {
        let head = JournalFrame.head(of: records, clockMs: clockMs())
        let last = files.count - 1
        try files[last].file.append(head, records)
        files[last].next = max(files[last].next, next)
        status.bytes += head.count + records.count
        dirtyBytes += head.count + records.count
    }

    func sync() throws(JournalFailure) {
        guard dirtyBytes > 0, let last = files.last else { return }
        try last.file.sync()
        dirtyBytes = 0
        status.syncs += 1
    }

    // MARK: files

    /* Nothing of it is needed once the places in it are done and no earlier file tells of them. */
    private func release(_ oldest: UInt64) throws(JournalFailure) {
        while files.count > 1, files[0].next <= oldest { try removeFirst() }
    }

    /* One that cannot be removed keeps its place: later ones tell what of it is done. */
    private func removeFirst() throws(JournalFailure) {
        let file = files[0].file
        let bytes = file.bytes
        if let failure = file.remove() { throw JournalFailure(doing: "removing \(file.path)", failure) }
        hasRemoved = true
        status.bytes -= bytes
        files.removeFirst()
    }

    /// A new file to write to; when there is too much already, one with what is still to be carried out.
    private func begin() throws(JournalFailure) {
        let mustCopy = status.bytes >= bytesMax
        if mayAppend { try sync() }
        mayAppend = false
        let file = try JournalFile(create: Self.file(path, lastNumber + 1))
        lastNumber += 1
        let old = files
        files.append(JournalRemains.File(number: lastNumber, file: file, next: old.last?.next ?? 0))
        status.bytes += file.bytes
        dirtyBytes += file.bytes
        do throws(JournalFailure) {
            if mustCopy { try copy(old) }
            try sync()
            /* Its name is to be on the disk as well. */
            try syncNames()
        } catch {
            dropLast()
            throw error
        }
        /* Not before: until then the copy is not safe. */
        if mustCopy { for _ in old { try removeFirst() } }
        mayAppend = true
    }

    /* A new one that nothing was acknowledged by: tried again every second it would be one more each time. */
    private func dropLast() {
        let last = files[files.count - 1].file
        let bytes = last.bytes
        dirtyBytes = 0
        guard last.remove() == nil else { return }
        status.bytes -= bytes
        files.removeLast()
    }

    private func syncNames() throws(JournalFailure) {
        guard fsync == .no || Glibc.fsync(directory) == 0 else { throw JournalFailure(doing: "fsync of \(path)") }
        hasRemoved = false
    }

    private func copy(_ old: [JournalRemains.File]) throws(JournalFailure) {
        let remains = try JournalRemains(of: old.map(\.file))
        /* Since it was written: all is carried out, and begun anew. */
        if let path = remains.damaged.first(where: { !damaged.contains($0) }) {
            throw JournalFailure("journal: \(path) has been damaged")
        }
        var records: [UInt8] = []
        let clockMs = clockMs()
        try remains.forEach { write throws(JournalFailure) in
            records += JournalRecord.put(write, clockMs: clockMs)
            if records.count >= Self.copyBytes {
                try append(records, remains.next)
                records = []
            }
        }
        if !records.isEmpty { try append(records, remains.next) }
    }

    private func append(_ records: [UInt8], _ next: UInt64) throws(JournalFailure) {
        var failure: JournalFailure?
        records.withUnsafeBytes { bytes in
            do throws(JournalFailure) { try append(bytes, next) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    /// Everything that it tells of has been carried out: it tells nothing any more.
    func clear() throws(JournalFailure) {
        remains = nil
        mayAppend = false
        while !files.isEmpty { try removeFirst() }
        dirtyBytes = 0
        /* Or they were back after a crash of the node, and what is confirmed behind them was overwritten. */
        if hasRemoved { try syncNames() }
    }

    /// Whether it can be written to again, after a failure. Files that could not be removed then go first: what they tell of
    /// has been carried out.
    func reopen() throws(JournalFailure) {
        try clear()
        try begin()
    }
}

/// What a journal has done, for metrics.
struct JournalStatus: Sendable, Equatable {
    /// Acknowledged writes are noted; false: there is no journal, or it cannot be written.
    var isOn = false
    /// Of its files.
    var bytes = 0
    /// Batches of acknowledgements written, and calls of fdatasync.
    var batches: UInt64 = 0
    var syncs: UInt64 = 0
    /// Times that it could not be written, or its files not removed; it is tried every second.
    var failures: UInt64 = 0
    /// Writes that an earlier process had acknowledged, and this one has sent.
    var restored: UInt64 = 0
}
