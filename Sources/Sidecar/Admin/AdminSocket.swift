import Glibc

/// The listening Unix socket of the admin pages, for its owner alone. Bound before anything starts, so that a path that cannot
/// be had is an error of the start.
struct AdminSocket: Sendable {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// Handed over to NIO.
    let fd: Int32
    let path: String

    init(_ path: String) throws(Failure) {
        self.path = path
        func failure(_ what: String) -> Failure {
            Failure(description: "cannot serve admin_socket on \(path): \(what)")
        }
        let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        fd = socket(AF_UNIX, type, 0)
        guard fd >= 0 else { throw failure(String(cString: strerror(errno))) }
        if Self.isListenedOn(path) {
            close(fd)
            throw failure("another process listens there, or it is no socket")
        }
        unlink(path)
        /* Nobody may connect in the moment between bind and chmod. */
        let mask = umask(0o177)
        let code = Self.withAddress(path) { bind(fd, $0, $1) }
        let reason = errno
        umask(mask)
        guard code == 0, listen(fd, 8) == 0 else {
            close(fd)
            throw failure("\(String(cString: strerror(reason))); its folder must exist and be writable")
        }
    }

    func remove() { unlink(path) }

    /// Somebody is there, or the file is no socket: it is not ours to replace.
    private static func isListenedOn(_ path: String) -> Bool {
        let probe = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        defer { close(probe) }
        if withAddress(path, { connect(probe, $0, $1) }) == 0 { return true }
        return errno != ENOENT && errno != ECONNREFUSED
    }

    private static func withAddress(
        _ path: String, _ use: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8.prefix($0.count - 1)) }
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                use($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }
}
