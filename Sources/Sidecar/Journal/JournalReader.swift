/// JournalReader — the frames of one file, in their order, and what is behind a place that is none.
///
/// A crash leaves the beginning of a frame at the end of the last file, and nothing behind. So a frame that is there to its last
/// byte and yet is wrong, or one behind a place that is none, tells of damage.
struct JournalReader {
    /// Of frames that may be tried in the search for the next good one; many times what a file is long.
    static let triedBytesMax = 256 << 20
    private static let windowBytes = 1 << 16

    private let file: JournalFile
    /// Where the next frame begins; at the end behind the last good one. 0: not even the file's head is whole.
    private(set) var offset = 0
    private var triedBytes = 0
    private var window: (start: Int, bytes: [UInt8]) = (0, [])

    struct Frame {
        /// Where its records begin in the file.
        var recordsAt: Int
        var clockMs: Int64
        var records: [UInt8]
    }

    init(_ file: JournalFile) throws(JournalFailure) {
        self.file = file
        let head = try file.read(at: 0, count: JournalFrame.fileHead.count)
        if head.count < JournalFrame.fileHead.count { return }
        guard head == JournalFrame.fileHead else {
            throw JournalFailure(
                "journal: \(file.path) is damaged at its beginning, or was written by another version; move it away, or start the version that wrote it"
            )
        }
        offset = head.count
    }

    /// Nil at the end, or where there is none: something is torn, or damaged.
    mutating func next() throws(JournalFailure) -> Frame? {
        guard offset > 0, let frame = try frame(at: offset) else { return nil }
        offset = frame.recordsAt + frame.records.count
        return frame
    }

    /// Behind a place that is no frame: goes on at the next one. False: there is none.
    mutating func resume() throws(JournalFailure) -> Bool {
        guard offset > 0, let found = try search() else { return false }
        offset = found
        return true
    }

    /// What is left, when there is no further frame, is the beginning of one.
    func isTorn() throws(JournalFailure) -> Bool {
        if offset == 0 { return true }
        let end = try end(ofFrameAt: offset)
        return end == nil && triedBytes < Self.triedBytesMax
    }

    // MARK: frames

    /// By its head; nil: that is none, or tells of more than the file has.
    private func end(ofFrameAt offset: Int) throws(JournalFailure) -> Int? {
        end(ofFrameAt: offset, try file.read(at: offset, count: JournalFrame.headBytes))
    }

    private func end(ofFrameAt offset: Int, _ head: [UInt8]) -> Int? {
        guard head.count == JournalFrame.headBytes else { return nil }
        let length = JournalFrame.readHead(head).length
        guard length >= 8, length - 8 <= file.bytes - offset - JournalFrame.headBytes else { return nil }
        return offset + 8 + length
    }

    private func frame(at offset: Int) throws(JournalFailure) -> Frame? {
        let head = try file.read(at: offset, count: JournalFrame.headBytes)
        guard let end = end(ofFrameAt: offset, head) else { return nil }
        let crc = JournalFrame.readHead(head).crc
        let recordsAt = offset + JournalFrame.headBytes
        let records = try file.read(at: recordsAt, count: end - recordsAt)
        let clock = Array(head[8...])
        let found = clock.withUnsafeBytes { clock in
            records.withUnsafeBytes { CRC32C.of($0, after: CRC32C.of(clock)) }
        }
        guard found == crc else { return nil }
        return Frame(
            recordsAt: recordsAt, clockMs: Int64(bitPattern: JournalFrame.number(head, at: 8, 8)), records: records)
    }

    // MARK: behind damage

    /// Where the damaged one ends by its head, if that is right. Else where one of its records ends, since what stands within
    /// a record is a client's, be it a copy of a journal. From where these make no sense either, anywhere.
    private mutating func search() throws(JournalFailure) -> Int? {
        let end = try end(ofFrameAt: offset)
        if let end, try isFrame(at: end) { return end }
        var at = offset + 1
        var record = offset + JournalFrame.headBytes
        while let next = try self.end(ofRecordAt: record) {
            /* Torn in this record, if the head says the same; when it tells of less, neither is to be believed. */
            if next > file.bytes, try !headTells(ofMoreThan: next) { break }
            at = next <= file.bytes ? next : end ?? file.bytes
            if try isFrame(at: at) { return at }
            if next > file.bytes { break }
            record = next
        }
        while at < file.bytes {
            if try isFrame(at: at) { return at }
            at += 1
        }
        return nil
    }

    private func headTells(ofMoreThan end: Int) throws(JournalFailure) -> Bool {
        let head = try file.read(at: offset, count: JournalFrame.headBytes)
        return head.count == JournalFrame.headBytes && offset + 8 + JournalFrame.readHead(head).length >= end
    }

    private mutating func isFrame(at offset: Int) throws(JournalFailure) -> Bool {
        let recordsAt = offset + JournalFrame.headBytes
        /* What is cheap first: how long it is, and that it begins with a record, and another if that is not all. */
        guard triedBytes < Self.triedBytesMax,
            let end = end(ofFrameAt: offset, try bytes(at: offset, count: JournalFrame.headBytes)),
            let first = try self.end(ofRecordAt: recordsAt), first <= end
        else { return false }
        if first < end, try self.end(ofRecordAt: first) == nil { return false }
        triedBytes += end - offset
        return try frame(at: offset) != nil
    }

    /// Nil: there is none, or not its whole head.
    private mutating func end(ofRecordAt offset: Int) throws(JournalFailure) -> Int? {
        JournalRecord.length(of: try bytes(at: offset, count: JournalRecord.headBytesMax)).map { offset + $0 }
    }

    /// By way of a window that moves over the file; fewer at its end.
    private mutating func bytes(at offset: Int, count: Int) throws(JournalFailure) -> [UInt8] {
        if offset < window.start || offset + count > window.start + window.bytes.count {
            window = (offset, try file.read(at: offset, count: Self.windowBytes))
        }
        return Array(window.bytes.dropFirst(offset - window.start).prefix(count))
    }
}
