import Glibc

/// The listening socket of the metrics page. Bound before anything starts, so that a port that is taken is an error of
/// the start and not of a running sidecar.
struct MetricsSocket: Sendable {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// Handed over to NIO.
    let fd: Int32
    /// "0.0.0.0:9091", the port the real one.
    let description: String

    init(_ metrics: SidecarConfig.Metrics) throws(Failure) {
        let wanted = UpstreamAddress(host: metrics.bind, port: metrics.port).description
        func failure(_ step: String, _ code: Int32) -> Failure {
            let reason = String(cString: strerror(code))
            let remedy =
                code == EADDRINUSE
                ? "another process has that port; choose another with metrics.port (--metrics-port), or metrics.enabled = false"
                : "metrics.bind and metrics.port say where"
            return Failure(description: "cannot serve metrics on \(wanted): \(step): \(reason); \(remedy)")
        }
        let isV6 = NumericAddress(metrics.bind)?.family == .v6
        let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        fd = socket(isV6 ? AF_INET6 : AF_INET, type, 0)
        guard fd >= 0 else { throw failure("socket", errno) }
        var on: Int32 = 1
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
        let bound = isV6 ? Self.bindV6(fd, metrics) : Self.bindV4(fd, metrics)
        guard bound == 0, listen(fd, 16) == 0 else {
            let code = errno
            close(fd)
            throw failure("bind", code)
        }
        description = UpstreamAddress(host: metrics.bind, port: Self.port(of: fd) ?? metrics.port).description
    }

    private static func bindV4(_ fd: Int32, _ metrics: SidecarConfig.Metrics) -> Int32 {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = metrics.port.bigEndian
        inet_pton(AF_INET, metrics.bind, &address.sin_addr)
        return withUnsafeBytes(of: &address) {
            bind(fd, $0.assumingMemoryBound(to: sockaddr.self).baseAddress, socklen_t($0.count))
        }
    }

    private static func bindV6(_ fd: Int32, _ metrics: SidecarConfig.Metrics) -> Int32 {
        var address = sockaddr_in6()
        address.sin6_family = sa_family_t(AF_INET6)
        address.sin6_port = metrics.port.bigEndian
        inet_pton(AF_INET6, metrics.bind, &address.sin6_addr)
        return withUnsafeBytes(of: &address) {
            bind(fd, $0.assumingMemoryBound(to: sockaddr.self).baseAddress, socklen_t($0.count))
        }
    }

    /// The port lies at the same place for both families.
    private static func port(of fd: Int32) -> UInt16? {
        var address = sockaddr_in6()
        var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
        let code = withUnsafeMutableBytes(of: &address) {
            getsockname(fd, $0.assumingMemoryBound(to: sockaddr.self).baseAddress, &length)
        }
        return code == 0 ? UInt16(bigEndian: address.sin6_port) : nil
    }
}
