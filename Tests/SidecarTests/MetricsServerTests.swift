import Foundation
import Glibc
import Synchronization
import Testing

@testable import Sidecar

@Suite("the metrics page over HTTP", .serialized)
struct MetricsServerTests {
    private final class Loop: Sendable {
        let stuckNs = Atomic<UInt64>(0)
        let draining = Atomic<Bool>(false)
    }

    private func withServer(_ body: (UInt16, Loop) async throws -> Void) async throws {
        let report = try SampleReport.report()
        let loop = Loop()
        let pages = MetricsPages(
            table: report.table, facts: report.facts, stats: { report.snapshot },
            stuckNs: { loop.stuckNs.load(ordering: .relaxed) == 0 ? nil : loop.stuckNs.load(ordering: .relaxed) },
            isDraining: { loop.draining.load(ordering: .relaxed) }, logLinesDropped: { 0 }, nowSeconds: { 200 })
        let socket = try MetricsSocket(.init(enabled: true, bind: "127.0.0.1", port: 0))
        let port = try #require(UInt16(socket.description.split(separator: ":").last ?? ""))
        let server = try await HTTPServer(socket.fd, pages)
        let result: Result<Void, any Error>
        do { result = .success(try await body(port, loop)) } catch { result = .failure(error) }
        await server.stop()
        try result.get()
    }

    /// Sends bytes, reads until the server closes.
    private func exchange(_ port: UInt16, _ request: String) async throws -> String {
        let fd = try connect(port)
        defer { close(fd) }
        return await exchange(fd, request)
    }

    /// Sends bytes, reads until the answer ends with `end` or the server closes. On a thread of its own: the server
    /// under test needs the pool, which a blocked test would take from it.
    private func exchange(_ fd: Int32, _ request: String, until end: String? = nil) async -> String {
        await withCheckedContinuation { continuation in
            Thread.detachNewThread { continuation.resume(returning: self.exchangeNow(fd, request, until: end)) }
        }
    }

    private func connect(_ port: UInt16) throws -> Int32 {
        let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        inet_pton(AF_INET, "127.0.0.1", &address.sin_addr)
        let code = withUnsafeBytes(of: &address) {
            Glibc.connect(fd, $0.assumingMemoryBound(to: sockaddr.self).baseAddress, socklen_t($0.count))
        }
        try #require(code == 0)
        return fd
    }

    private func exchangeNow(_ fd: Int32, _ request: String, until end: String?) -> String {
        /* Long, for a busy machine: silence is a failure, never the end of an answer. */
        var timeout = timeval(tv_sec: 60, tv_usec: 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        _ = send(fd, request, request.utf8.count, Int32(MSG_NOSIGNAL))
        var answer: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = recv(fd, &chunk, chunk.count, 0)
            if count <= 0 { break }
            answer.append(contentsOf: chunk[..<count])
            if let end, answer.suffix(end.utf8.count).elementsEqual(end.utf8) { break }
        }
        return String(decoding: answer, as: UTF8.self)
    }

    @Test("answers every page with its type and length")
    func pages() async throws {
        try await withServer { port, _ in
            let metrics = try await exchange(port, "GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            #expect(metrics.hasPrefix("HTTP/1.1 200 OK\r\n"))
            #expect(metrics.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"))
            #expect(metrics.contains("\r\n\r\n# HELP commands_total Commands\n"))
            let stats = try await exchange(port, "GET /stats HTTP/1.0\r\n\r\n")
            #expect(stats.contains("Content-Type: application/json\r\n"))
            #expect(stats.hasSuffix("}\n"))
            #expect(try await exchange(port, "GET /healthz HTTP/1.0\r\n\r\n").hasSuffix("\r\n\r\nok\n"))
            #expect(try await exchange(port, "GET /readyz HTTP/1.0\r\n\r\n").hasSuffix("\r\n\r\nready\n"))
            #expect(try await exchange(port, "GET /nothing HTTP/1.0\r\n\r\n").contains(" 404 "))
        }
    }

    @Test("HEAD has no body, other methods are refused, garbage and large requests end the connection")
    func methods() async throws {
        try await withServer { port, _ in
            let head = try await exchange(port, "HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            #expect(head.contains("Content-Length: 3\r\n") && head.hasSuffix("\r\n\r\n"))
            let post = try await exchange(
                port, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx")
            #expect(post.hasPrefix("HTTP/1.1 405 ") && post.contains("Allow: GET, HEAD\r\n"))
            let large = try await exchange(
                port,
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + String(repeating: "x", count: 100_000))
            #expect(!large.contains(" 200 "))
            #expect(!(try await exchange(port, "*1\r\n$4\r\nPING\r\n")).contains("PONG"))
            let longLine = try await exchange(
                port, "GET /" + String(repeating: "x", count: 200_000) + " HTTP/1.1\r\n\r\n")
            #expect(!longLine.contains(" 200 "))
            #expect(try await exchange(port, "GET /healthz HTTP/1.0\r\n\r\n").hasSuffix("ok\n"))
        }
    }

    @Test(
        "a body that is too large is refused at once, announced or not",
        arguments: [
            ("Content-Length: 4097\r\n\r\n", 413),
            ("Transfer-Encoding: chunked\r\n\r\n1001\r\n" + String(repeating: "x", count: 4097), 413),
            ("Connection: close\r\nContent-Length: 4096\r\n\r\n" + String(repeating: "x", count: 4096), 405),
        ])
    func largeBody(rest: String, status: Int) async throws {
        try await withServer { port, _ in
            let answer = try await exchange(port, "POST / HTTP/1.1\r\nHost: x\r\n" + rest)
            #expect(answer.hasPrefix("HTTP/1.1 \(status) "), "\(answer)")
        }
    }

    @Test("a connection is kept, and pipelined requests are answered in order")
    func keepAlive() async throws {
        try await withServer { port, _ in
            let fd = try connect(port)
            defer { close(fd) }
            let request = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"
            let first = await exchange(fd, request, until: "ready\n")
            #expect(first.components("HTTP/1.1 200").count == 3)
            #expect(first.hasSuffix("ready\n"))
            let second = await exchange(fd, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", until: "ok\n")
            #expect(second.hasSuffix("ok\n"))
        }
    }

    @Test("connections that only stay open keep nobody out")
    func connections() async throws {
        try await withServer { port, _ in
            let many = try (0..<40).map { _ in try connect(port) }
            usleep(100_000)
            #expect(try await exchange(port, "GET /healthz HTTP/1.0\r\n\r\n").hasSuffix("ok\n"))
            many.forEach { close($0) }
            var answer = ""
            for _ in 0..<100 where !answer.hasSuffix("ok\n") {
                usleep(100_000)
                answer = try await exchange(port, "GET /healthz HTTP/1.0\r\n\r\n")
            }
            #expect(answer.hasSuffix("ok\n"))
        }
    }

    @Test("a stuck loop fails /healthz and the numbers, not /readyz; a drain fails /readyz only")
    func health() async throws {
        try await withServer { port, loop in
            loop.stuckNs.store(3_200_000_000, ordering: .relaxed)
            for path in ["/healthz", "/metrics", "/stats"] {
                let answer = try await exchange(port, "GET \(path) HTTP/1.0\r\n\r\n")
                #expect(answer.contains(" 503 ") && answer.contains("3200 ms"), "\(path)")
            }
            #expect(try await exchange(port, "GET /readyz HTTP/1.0\r\n\r\n").contains(" 200 "))
            loop.stuckNs.store(0, ordering: .relaxed)
            loop.draining.store(true, ordering: .relaxed)
            #expect(try await exchange(port, "GET /readyz HTTP/1.0\r\n\r\n").contains(" 503 "))
            #expect(try await exchange(port, "GET /healthz HTTP/1.0\r\n\r\n").contains(" 200 "))
        }
    }

    @Test("a port that is taken says which key to change")
    func portTaken() throws {
        let first = try MetricsSocket(.init(enabled: true, bind: "127.0.0.1", port: 0))
        defer { close(first.fd) }
        let port = try #require(UInt16(first.description.split(separator: ":").last ?? ""))
        do throws(MetricsSocket.Failure) {
            _ = try MetricsSocket(.init(enabled: true, bind: "127.0.0.1", port: port))
            Issue.record("the port was given twice")
        } catch {
            #expect(error.description.contains("metrics.port"))
            #expect(error.description.contains("127.0.0.1:\(port)"))
        }
    }

    @Test("it listens on IPv6", .enabled(if: hasV6, "this machine has no IPv6"))
    func v6() throws {
        let socket = try MetricsSocket(.init(enabled: true, bind: "::1", port: 0))
        defer { close(socket.fd) }
        #expect(socket.description.hasPrefix("[::1]:") && socket.description != "[::1]:0")
    }

    @Test(
        "* is every address of both families, :: those of IPv6", .enabled(if: hasV6, "this machine has no IPv6"),
        arguments: [("*", "*"), ("::", "[::]")])
    func everywhere(_ bind: String, _ shown: String) throws {
        let page = try MetricsSocket(.init(enabled: true, bind: bind, port: 0))
        defer { close(page.fd) }
        let port = try #require(UInt16(page.description.split(separator: ":").last ?? ""))
        #expect(page.description == "\(shown):\(port)")
        #expect(Self.connects("::1", port))
        #expect(Self.connects("127.0.0.1", port) == (bind == "*"))
    }

    private static let hasV6 =
        (try? MetricsSocket(.init(enabled: true, bind: "::1", port: 0))).map { close($0.fd) } != nil

    private static func connects(_ host: String, _ port: UInt16) -> Bool {
        guard let address = Resolver.numeric(UpstreamAddress(host: host, port: port)) else { return false }
        let fd = socket(host.contains(":") ? AF_INET6 : AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(fd) }
        return address.withUnsafeBytes {
            Glibc.connect(fd, $0.assumingMemoryBound(to: sockaddr.self).baseAddress, socklen_t($0.count)) == 0
        }
    }
}

extension String {
    fileprivate func components(_ separator: String) -> [String] {
        var parts: [String] = [""]
        var rest = Substring(self)
        while let character = rest.first {
            if rest.hasPrefix(separator) {
                parts.append("")
                rest = rest.dropFirst(separator.count)
            } else {
                parts[parts.count - 1].append(character)
                rest = rest.dropFirst()
            }
        }
        return parts
    }
}
