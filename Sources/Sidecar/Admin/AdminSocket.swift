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
        if let who = Self.holder(of: path) {
            close(fd)
            throw failure("\(who); name another path")
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

    /// Who or what has the path, when it is not ours to replace: only a socket on which nobody listens any more is. A regular
    /// file refuses a connection just as such a socket does.
    private static func holder(of path: String) -> String? {
        var facts = stat()
        guard lstat(path, &facts) == 0 else { return nil }
        guard facts.st_mode & S_IFMT == S_IFSOCK else { return "what is there is no socket, and is left as it is" }
        let probe = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        defer { close(probe) }
        if withAddress(path, { connect(probe, $0, $1) }) == 0 { return "another process listens there" }
        let reason = errno
        return reason == ENOENT || reason == ECONNREFUSED ? nil : String(cString: strerror(reason))
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
