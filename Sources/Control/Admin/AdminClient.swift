import Glibc

/// The sidecar's admin socket: one request over HTTP on a Unix socket.
struct AdminClient {
    struct Failure: Error {
        /// With what can be done about it.
        var sentence: String
    }

    static let standardPath = "/run/ferrite/admin.sock"

    let path: String

    private static let timeoutSeconds = 30
    private static let answerBytesMax = 1 << 20

    /// The body of a 200 answer.
    func request(_ method: String, _ target: String) throws(Failure) -> String {
        let fd = try connect()
        defer { close(fd) }
        let text = "\(method) \(target) HTTP/1.1\r\nHost: admin\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        guard send(fd, text, text.utf8.count, Int32(MSG_NOSIGNAL)) == text.utf8.count else {
            throw Failure(sentence: "\(path) closed the connection: \(String(cString: strerror(errno)))")
        }
        let answer = String(decoding: try readAll(fd), as: UTF8.self)
        let words = answer.split(separator: " ", maxSplits: 2)
        guard words.count > 1, words[0].hasPrefix("HTTP/1."), let status = Int(words[1]),
            let end = answer.range(of: "\r\n\r\n")
        else {
            throw Failure(sentence: "\(path) does not speak HTTP; is it admin_socket, or the clients' unix_socket?")
        }
        let body = String(answer[end.upperBound...])
        guard status == 200 else { throw Failure(sentence: body.isEmpty ? "the sidecar answered \(status)" : body) }
        return body
    }

    private func connect() throws(Failure) -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        guard path.utf8.count < MemoryLayout.size(ofValue: address.sun_path) else {
            throw Failure(sentence: "\(path) is longer than a socket's name may be (107 bytes)")
        }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let fd = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var timeout = timeval(tv_sec: Self.timeoutSeconds, tv_usec: 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        let code = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(fd, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        if code == 0 { return fd }
        let reason = errno
        close(fd)
        throw Failure(sentence: unreachable(reason))
    }

    private func unreachable(_ code: Int32) -> String {
        switch code {
        case ENOENT, ECONNREFUSED:
            """
            nothing listens on \(path).
              Is a sidecar running with admin_socket = "\(path)"? It has none unless it is told so.
              Another place: ferritectl … --socket PATH, or FERRITE_ADMIN_SOCKET
            """
        case EACCES, EPERM: "\(path) may not be opened: only the sidecar's own user may steer it"
        default: "\(path) cannot be reached: \(String(cString: strerror(code)))"
        }
    }

    private func readAll(_ fd: Int32) throws(Failure) -> [UInt8] {
        var answer: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16_384)
        while answer.count <= Self.answerBytesMax {
            let count = recv(fd, &chunk, chunk.count, 0)
            if count == 0 { return answer }
            if count < 0 {
                if errno == EINTR { continue }
                let what =
                    errno == EAGAIN ? "no answer within \(Self.timeoutSeconds) s" : String(cString: strerror(errno))
                throw Failure(sentence: "\(path): \(what)")
            }
            answer.append(contentsOf: chunk[..<count])
        }
        throw Failure(sentence: "\(path) sends more than an answer")
    }
}

extension String {
    /// Of a UTF-8 text; without Foundation.
    fileprivate func range(of part: String) -> Range<String.Index>? {
        let (bytes, wanted) = (Array(utf8), Array(part.utf8))
        guard bytes.count >= wanted.count else { return nil }
        for start in 0...(bytes.count - wanted.count) where bytes[start...].starts(with: wanted) {
            let from = utf8.index(utf8.startIndex, offsetBy: start)
            return from..<utf8.index(from, offsetBy: wanted.count)
        }
        return nil
    }
}
