import Glibc

/// What went wrong with the journal: a sentence with cause and remedy.
struct JournalFailure: Error, Sendable, Equatable, CustomStringConvertible {
    var description: String

    init(_ description: String) { self.description = description }

    init(doing what: String, _ error: Int32 = errno) {
        description = "journal: \(what): \(String(cString: strerror(error)))"
    }
}

/// JournalFile — one file of a journal, open; says what the system says.
final class JournalFile {
    let path: String
    private(set) var bytes = 0
    private let fd: Int32

    /// A new one, with its head. What failed leaves no file.
    init(create path: String) throws(JournalFailure) {
        self.path = path
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard fd >= 0 else { throw JournalFailure(doing: "making \(path)") }
        do throws(JournalFailure) {
            try append(JournalFrame.fileHead, UnsafeRawBufferPointer(start: nil, count: 0))
        } catch {
            unlink(path)
            throw error
        }
    }

    init(open path: String) throws(JournalFailure) {
        self.path = path
        fd = Glibc.open(path, O_RDWR | O_CLOEXEC)
        var status = stat()
        guard fd >= 0, fstat(fd, &status) == 0 else { throw JournalFailure(doing: "opening \(path)") }
        bytes = Int(status.st_size)
    }

    deinit { if fd >= 0 { close(fd) } }

    /// All or nothing: of what could not be written whole nothing is left.
    func append(_ head: [UInt8], _ records: UnsafeRawBufferPointer) throws(JournalFailure) {
        let failure =
            head.withUnsafeBytes { write($0, at: bytes) } ?? write(records, at: bytes + head.count)
        if let failure {
            ftruncate(fd, off_t(bytes))
            throw JournalFailure(doing: "writing \(path)", failure)
        }
        bytes += head.count + records.count
    }

    /// An errno, nil when all is written.
    private func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) -> Int32? {
        var done = 0
        while done < bytes.count {
            let count = pwrite(fd, bytes.baseAddress.map { $0 + done }, bytes.count - done, off_t(offset + done))
            if count > 0 {
                done += count
            } else if count == 0 || errno != EINTR {
                return count == 0 ? ENOSPC : errno
            }
        }
        return nil
    }

    /// On the disk. After a failure the kernel may have forgotten what it could not write, so it is not tried again.
    func sync() throws(JournalFailure) {
        guard fdatasync(fd) == 0 else { throw JournalFailure(doing: "fdatasync of \(path)") }
        /* The kernel charges the pages that it keeps to us. */
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)
    }

    /// Fewer at the file's end.
    func read(at offset: Int, count: Int) throws(JournalFailure) -> [UInt8] {
        var failure: Int32 = 0
        let read = [UInt8](unsafeUninitializedCapacity: count) { buffer, done in
            while done < count {
                let got = pread(fd, buffer.baseAddress.map { $0 + done }, count - done, off_t(offset + done))
                if got > 0 {
                    done += got
                } else if got == 0 || errno != EINTR {
                    failure = got < 0 ? errno : 0
                    break
                }
            }
        }
        if failure != 0 { throw JournalFailure(doing: "reading \(path)", failure) }
        return read
    }

    /// Removes it or, where that cannot be, empties it: then it tells of nothing either. An errno, nil when it is so.
    func remove() -> Int32? {
        if unlink(path) == 0 || errno == ENOENT { return nil }
        let failure = errno
        var status = stat()
        /* What has another name is the copy of a damaged file. */
        guard fstat(fd, &status) == 0, status.st_nlink == 1, ftruncate(fd, 0) == 0, fdatasync(fd) == 0 else {
            return failure
        }
        bytes = 0
        return nil
    }

    func cut(to bytes: Int) throws(JournalFailure) {
        guard ftruncate(fd, off_t(bytes)) == 0 else { throw JournalFailure(doing: "cutting \(path)") }
        self.bytes = bytes
    }
}
