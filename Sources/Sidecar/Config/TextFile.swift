import Glibc

/// Small files read whole. Control threads only: reading may wait.
enum TextFile {
    enum Failure: Error, Equatable {
        /// An errno.
        case system(Int32)
        case tooLarge(bytesMax: Int)

        var sentence: String {
            switch self {
            case .system(let code): String(cString: strerror(code))
            case .tooLarge(let bytesMax): "larger than \(bytesMax) bytes"
            }
        }
    }

    static func bytes(_ path: String, bytesMax: Int) throws(Failure) -> [UInt8] {
        let fd = open(path, O_RDONLY | O_CLOEXEC)
        guard fd >= 0 else { throw .system(errno) }
        defer { close(fd) }
        var out: [UInt8] = []
        out.reserveCapacity(4096)
        var chunk = [UInt8](repeating: 0, count: 4096)
        /* It may be a key. */
        defer { chunk.withUnsafeMutableBytes { if let start = $0.baseAddress { explicit_bzero(start, $0.count) } } }
        while true {
            let count = Glibc.read(fd, &chunk, chunk.count)
            if count < 0 {
                if errno == EINTR { continue }
                throw .system(errno)
            }
            if count == 0 { return out }
            out.append(contentsOf: chunk[..<count])
            if out.count > bytesMax { throw .tooLarge(bytesMax: bytesMax) }
        }
    }

    /// Something is there, and it is a folder, a device, a pipe or a socket; a link is what it leads to.
    static func isSpecial(_ path: String) -> Bool {
        var facts = stat()
        return stat(path, &facts) == 0 && facts.st_mode & S_IFMT != S_IFREG
    }

    /// Something is there, and it is no folder.
    static func isNoFolder(_ path: String) -> Bool {
        var facts = stat()
        return stat(path, &facts) == 0 && facts.st_mode & S_IFMT != S_IFDIR
    }

    /// nil when it cannot be read.
    static func read(_ path: String, bytesMax: Int) -> String? {
        guard let bytes = try? bytes(path, bytesMax: bytesMax) else { return nil }
        return String(decoding: bytes, as: UTF8.self)
    }
}
