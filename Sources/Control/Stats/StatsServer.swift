import Glibc

/// The sidecar's metrics page: one GET over a socket, answered within seconds or not at all.
struct StatsServer {
    let host: String
    let port: UInt16

    private static let timeoutSeconds = 3
    private static let answerBytesMax = 4 << 20

    /// http://HOST[:PORT][/], or HOST:PORT.
    init(url: String) throws(StatsFailure) {
        var rest = url[...]
        if url.hasPrefix("http://") {
            rest = rest.dropFirst("http://".count)
        } else if url.contains("://") {
            throw StatsFailure(sentence: "--url \(url): the metrics page speaks plain http, e.g. http://127.0.0.1:9091")
        }
        rest = rest.prefix { $0 != "/" }
        var portText: Substring = "9091"
        if rest.hasPrefix("["), let end = rest.firstIndex(of: "]") {
            host = String(rest[rest.index(after: rest.startIndex)..<end])
            let after = rest[rest.index(after: end)...]
            if after.hasPrefix(":") { portText = after.dropFirst() }
        } else if let colon = rest.lastIndex(of: ":") {
            host = String(rest[..<colon])
            portText = rest[rest.index(after: colon)...]
        } else {
            host = String(rest)
        }
        guard !host.isEmpty, let port = UInt16(portText), port > 0 else {
            throw StatsFailure(sentence: "--url \(url): expected http://HOST:PORT, e.g. http://127.0.0.1:9091")
        }
        self.port = port
    }

    private var place: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }

    /// The body of a 200 answer.
    func fetch(_ path: String) throws(StatsFailure) -> String {
        let fd = try connect()
        defer { close(fd) }
        let request = "GET \(path) HTTP/1.1\r\nHost: \(place)\r\nConnection: close\r\nUser-Agent: ferritectl\r\n\r\n"
        guard send(fd, request, request.utf8.count, Int32(MSG_NOSIGNAL)) == request.utf8.count else {
            throw StatsFailure(sentence: "\(place) closed the connection: \(String(cString: strerror(errno)))")
        }
        return try body(of: try readAll(fd))
    }

    private func connect() throws(StatsFailure) -> Int32 {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        let code = getaddrinfo(host, String(port), &hints, &found)
        guard code == 0 else {
            throw StatsFailure(sentence: "\(host) cannot be resolved: \(String(cString: gai_strerror(code)))")
        }
        defer { freeaddrinfo(found) }
        var lastError: Int32 = 0
        var next = found
        while let address = next?.pointee {
            let fd = socket(address.ai_family, address.ai_socktype | Int32(SOCK_CLOEXEC.rawValue), address.ai_protocol)
            if fd >= 0 {
                /* Both are honoured by connect as well. */
                var timeout = timeval(tv_sec: Self.timeoutSeconds, tv_usec: 0)
                setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
                setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
                if Glibc.connect(fd, address.ai_addr, address.ai_addrlen) == 0 { return fd }
                lastError = errno
                close(fd)
            } else {
                lastError = errno
            }
            next = address.ai_next
        }
        throw StatsFailure(sentence: unreachable(lastError))
    }

    private func unreachable(_ code: Int32) -> String {
        switch code {
        case ECONNREFUSED:
            """
            nothing listens on \(place).
              Is a sidecar running, with metrics.enabled = true? Its start line says where its metrics are.
              Another place: ferritectl stats --url http://HOST:PORT
            """
        case EINPROGRESS, EAGAIN, ETIMEDOUT: "\(place) did not answer within \(Self.timeoutSeconds) s"
        default: "\(place) cannot be reached: \(String(cString: strerror(code)))"
        }
    }

    private func readAll(_ fd: Int32) throws(StatsFailure) -> [UInt8] {
        var answer: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = recv(fd, &chunk, chunk.count, 0)
            if count == 0 { return answer }
            if count < 0 {
                if errno == EINTR { continue }
                throw StatsFailure(sentence: unreachable(errno))
            }
            answer.append(contentsOf: chunk[..<count])
            guard answer.count <= Self.answerBytesMax else {
                throw StatsFailure(sentence: "\(place) sends more than numbers; is it a ferrite sidecar?")
            }
        }
    }

    private func body(of answer: [UInt8]) throws(StatsFailure) -> String {
        let text = String(decoding: answer, as: UTF8.self)
        let lines = text.split(separator: "\r\n", maxSplits: 1, omittingEmptySubsequences: false)
        let status = lines[0].split(separator: " ")
        guard status.count >= 2, status[0].hasPrefix("HTTP/1."), let code = Int(status[1]) else {
            throw StatsFailure(
                sentence:
                    "\(place) does not speak HTTP; is it the sidecar's metrics port (9091) or the one for clients?")
        }
        /* Found by bytes: "\r\n" is one Character, so a search by characters would miss "\r\n\r\n". */
        let end: [UInt8] = [13, 10, 13, 10]
        var start = 0
        while start + 4 <= answer.count, !answer[start..<start + 4].elementsEqual(end) { start += 1 }
        let body = String(decoding: answer.dropFirst(start + 4), as: UTF8.self)
        switch code {
        case 200: return body
        case 503:
            throw StatsFailure(
                sentence:
                    "the sidecar at \(place) is not well: \(body.split(separator: "\n").first ?? "no reason given")")
        default:
            throw StatsFailure(
                sentence:
                    "\(place) answered \(code) to \(lines[0].isEmpty ? "" : "GET /stats"); is it a ferrite sidecar?")
        }
    }
}
