import Glibc

/// The listening socket of the metrics page. Bound before anything starts, so that a port that is taken is an error of
/// the start and not of a running sidecar.
struct MetricsSocket: Sendable {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// Handed over to NIO.
    let fd: Int32
    /// "*:9091", the port the real one.
    let description: String

    private enum Opened {
        case socket(Int32)
        case failed(step: String, code: Int32)
    }

    init(_ metrics: SidecarConfig.Metrics) throws(Failure) {
        var host = metrics.bind
        var opened: Opened
        if host == SidecarConfig.Metrics.everywhere {
            opened = Self.open("::", metrics.port, takesV4: true)
            // Where the kernel has no IPv6 all addresses are those of IPv4.
            if case .failed(_, let code) = opened, code != EADDRINUSE {
                host = "0.0.0.0"
                opened = Self.open(host, metrics.port)
            }
        } else {
            opened = Self.open(host, metrics.port)
        }
        switch opened {
        case .socket(let fd):
            self.fd = fd
            description = UpstreamAddress(host: host, port: Self.port(of: fd) ?? metrics.port).description
        case .failed(let step, let code):
            let wanted = UpstreamAddress(host: metrics.bind, port: metrics.port).description
            let reason = String(cString: strerror(code))
            let remedy =
                code == EADDRINUSE
                ? "another process has that port; choose another with metrics.port (--metrics-port), or metrics.enabled = false"
                : "metrics.bind and metrics.port say where"
            throw Failure(description: "cannot serve metrics on \(wanted): \(step): \(reason); \(remedy)")
        }
    }

    /// - Parameter takesV4: a socket of IPv6 takes connections of IPv4 as well, whatever the machine's default.
    private static func open(_ host: String, _ port: UInt16, takesV4: Bool = false) -> Opened {
        let isV6 = NumericAddress(host)?.family == .v6
        let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        let fd = socket(isV6 ? AF_INET6 : AF_INET, type, 0)
        guard fd >= 0 else { return .failed(step: "socket", code: errno) }
        set(fd, SOL_SOCKET, SO_REUSEADDR, 1)
        if isV6 { set(fd, Int32(IPPROTO_IPV6), IPV6_V6ONLY, takesV4 ? 0 : 1) }
        let bound = isV6 ? bindV6(fd, host, port) : bindV4(fd, host, port)
        guard bound == 0, listen(fd, 16) == 0 else {
            let code = errno
            close(fd)
            return .failed(step: "bind", code: code)
        }
        return .socket(fd)
    }

    private static func set(_ fd: Int32, _ level: Int32, _ option: Int32, _ value: Int32) {
        withUnsafeBytes(of: value) { _ = setsockopt(fd, level, option, $0.baseAddress, socklen_t($0.count)) }
    }

    private static func bindV4(_ fd: Int32, _ host: String, _ port: UInt16) -> Int32 {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        inet_pton(AF_INET, host, &address.sin_addr)
        return withUnsafeBytes(of: &address) {
            bind(fd, $0.assumingMemoryBound(to: sockaddr.self).baseAddress, socklen_t($0.count))
        }
    }

    private static func bindV6(_ fd: Int32, _ host: String, _ port: UInt16) -> Int32 {
        var address = sockaddr_in6()
        address.sin6_family = sa_family_t(AF_INET6)
        address.sin6_port = port.bigEndian
        inet_pton(AF_INET6, host, &address.sin6_addr)
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
