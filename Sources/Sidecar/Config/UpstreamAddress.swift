/// Where the central server is: a name or a numeric address, resolved again at every connect.
struct UpstreamAddress: Sendable, Equatable, CustomStringConvertible {
    struct Malformed: Error {
        /// A clause for a message.
        var what: String
    }

    static let portDefault: UInt16 = 6379

    /// Without brackets.
    var host: String
    var port: UInt16
    var isTLS = false

    init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// HOST:PORT, HOST, [IPV6]:PORT, [IPV6], redis://HOST:PORT, rediss://HOST:PORT.
    init(parsing text: String) throws(Malformed) {
        var rest = text[...]
        if let scheme = text.range(of: "://") {
            isTLS = try Self.isTLS(scheme: text[..<scheme.lowerBound].lowercased())
            rest = text[scheme.upperBound...]
            if rest.contains("@") {
                throw Malformed(what: "carries credentials; give them as username and password")
            }
            if let slash = rest.firstIndex(of: "/") {
                let database = rest[rest.index(after: slash)...]
                if !database.isEmpty, database != "0" {
                    throw Malformed(what: "names database \"\(database)\"; clients choose theirs with SELECT")
                }
                rest = rest[..<slash]
            }
        }
        let portText: Substring?
        if rest.hasPrefix("[") {
            guard let end = rest.firstIndex(of: "]") else { throw Malformed(what: "\"\(text)\" lacks the closing ]") }
            host = String(rest[rest.index(after: rest.startIndex)..<end])
            let after = rest[rest.index(after: end)...]
            guard after.isEmpty || after.hasPrefix(":") else {
                throw Malformed(what: "\"\(after)\" follows the ], where :PORT belongs")
            }
            guard NumericAddress(host)?.family == .v6 else {
                throw Malformed(what: "\"\(host)\" in brackets is no IPv6 address")
            }
            portText = after.isEmpty ? nil : after.dropFirst()
        } else {
            let parts = rest.split(separator: ":", omittingEmptySubsequences: false)
            if parts.count > 2 {
                throw Malformed(what: "\"\(text)\" has several colons; an IPv6 address stands in brackets")
            }
            host = String(parts.first ?? "")
            portText = parts.count == 2 ? parts[1] : nil
        }
        guard !host.isEmpty else { throw Malformed(what: "\"\(text)\" has no host") }
        guard host.utf8.allSatisfy(Self.mayStandInHost), host.utf8.count <= 253 else {
            throw Malformed(what: "\"\(host)\" is no host name")
        }
        if let portText {
            guard let value = UInt16(portText), value > 0 else {
                throw Malformed(what: "\"\(portText)\" is no port (1 to 65535)")
            }
            port = value
        } else {
            port = Self.portDefault
        }
    }

    private static func isTLS(scheme: String) throws(Malformed) -> Bool {
        switch scheme {
        case "redis", "tcp": return false
        case "rediss", "tls": return true
        default: throw Malformed(what: "\"\(scheme)://\" is not known")
        }
    }

    private static func mayStandInHost(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
            UInt8(ascii: ":"), UInt8(ascii: "%"):
            true
        default: false
        }
    }

    var description: String { "\(isTLS ? "rediss://" : "")\(host.contains(":") ? "[\(host)]" : host):\(port)" }
}

extension String {
    /// The first occurrence of a text (the standard library's own search needs no Foundation but gives a regex).
    fileprivate func range(of text: String) -> Range<String.Index>? {
        var start = startIndex
        while start < endIndex {
            if self[start...].hasPrefix(text) { return start..<index(start, offsetBy: text.count) }
            start = index(after: start)
        }
        return nil
    }
}
