import Glibc

/// Resolver — the upstream's name to socket addresses. Blocks: for a control thread.
enum Resolver {
    /// Of a numeric address, at once and on any thread; nil for a name.
    static func numeric(_ upstream: UpstreamAddress) -> [UInt8]? {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        hints.ai_flags = AI_NUMERICSERV | AI_NUMERICHOST
        var found: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(upstream.host, String(upstream.port), &hints, &found) == 0, let found else { return nil }
        defer { freeaddrinfo(found) }
        return Array(UnsafeRawBufferPointer(start: found.pointee.ai_addr, count: Int(found.pointee.ai_addrlen)))
    }

    static func resolve(_ upstream: UpstreamAddress) -> Resolution {
        var hints = addrinfo()
        hints.ai_family = AF_UNSPEC
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        hints.ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG
        var found: UnsafeMutablePointer<addrinfo>?
        var code = getaddrinfo(upstream.host, String(upstream.port), &hints, &found)
        if code != 0, code != EAI_AGAIN {
            /* Loopback alone does not count as an address to AI_ADDRCONFIG. */
            hints.ai_flags = AI_NUMERICSERV
            code = getaddrinfo(upstream.host, String(upstream.port), &hints, &found)
        }
        guard code == 0 else { return .failed(String(cString: gai_strerror(code))) }
        defer { freeaddrinfo(found) }
        var addresses: [[UInt8]] = []
        var next = found
        while let entry = next, addresses.count < 16 {
            if let address = entry.pointee.ai_addr {
                let bytes = UnsafeRawBufferPointer(start: address, count: Int(entry.pointee.ai_addrlen))
                if !addresses.contains(Array(bytes)) { addresses.append(Array(bytes)) }
            }
            next = entry.pointee.ai_next
        }
        return addresses.isEmpty ? .failed("no address") : .addresses(addresses)
    }
}
