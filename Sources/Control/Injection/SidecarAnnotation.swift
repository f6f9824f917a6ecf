import Glibc

/// One annotation that says how the sidecar should be. The table drives the reader and docs/kubernetes.md.
struct SidecarAnnotation: Sendable {
    /// Behind "ferrite.io/sidecar-".
    var suffix: String
    var help: String
    /// What it takes, behind "use": `a size of 48Mi or more, e.g. "128Mi"`.
    var expected: String
    /// Puts the value where it belongs; false where it is no good one.
    var apply: @Sendable (String, inout SidecarRequest) -> Bool

    var name: String { Self.prefix + suffix }

    static let prefix = "ferrite.io/sidecar-"
    /// Accepted in place of `prefix`.
    static let aliasPrefix = "ferrite.dev/sidecar-"
    static let injectName = prefix + "inject"
    /// What was done to the pod, as JSON: read by `ferritectl uninject`.
    static let statusName = prefix + "status"
    static let tlsScheme = "rediss://"
    /// 32mb to work with, and the 16 MiB that the daemon keeps free below a container's limit.
    static let memoryMin = Quantity.mebibytes(48)

    static let all: [SidecarAnnotation] = [
        SidecarAnnotation(
            suffix: "memory",
            help: "Memory limit and request of the container. The daemon keeps 16 MiB or 12% of it free.",
            expected: #"a size of 48Mi or more, e.g. "128Mi""#
        ) { value, request in
            guard let memory = Quantity(value), memory >= memoryMin, memory.thousandths <= 1000 << 40 else {
                return false
            }
            request.memory = memory
            return true
        },
        SidecarAnnotation(
            suffix: "upstream", help: "The central server; `rediss://HOST:PORT` for TLS.",
            expected: #"HOST:PORT or rediss://HOST:PORT, e.g. "ferrite-cluster.default.svc:6379""#
        ) { value, request in
            guard isAddress(value.hasPrefix(tlsScheme) ? String(value.dropFirst(tlsScheme.count)) : value) else {
                return false
            }
            request.upstream = value
            return true
        },
        choice("mode", of: ["read-through", "write-through", "write-behind"], "How writes travel."),
        choice("eviction", of: ["lru", "lfu", "random"], "Which entry goes when memory is needed."),
        SidecarAnnotation(
            suffix: "ttl", help: "How long a cached value is served before it is fetched again.",
            expected: #"a time from 1ms to 30 days, e.g. "300" (seconds) or "5m""#
        ) { value, request in
            guard isDuration(value) else { return false }
            request.settings.append(.init(key: "ttl_default", value: value))
            return true
        },
        SidecarAnnotation(
            suffix: "prefetch", help: "Keys to fetch ahead: patterns with commas between them.",
            expected: #"patterns with commas between them, e.g. "session:*,config:*""#
        ) { value, request in
            let patterns = value.split(whereSeparator: { $0 == "," || $0 == " " })
            guard !patterns.isEmpty, patterns.count <= 64, !value.unicodeScalars.contains(where: isControl) else {
                return false
            }
            request.settings.append(.init(key: "prefetch.enabled", value: "true"))
            /* As a list of TOML: a pattern may begin with a bracket. */
            let quoted = patterns.map { pattern in
                "\"" + pattern.map { $0 == "\"" || $0 == "\\" ? "\\\($0)" : String($0) }.joined() + "\""
            }
            request.settings.append(.init(key: "prefetch.patterns", value: "[\(quoted.joined(separator: ", "))]"))
            return true
        },
        SidecarAnnotation(
            suffix: "password-secret",
            help:
                "The upstream's password: a Secret in the pod's namespace, and the key in it (\"password\" if none is named).",
            expected: #"SECRET or SECRET/KEY, e.g. "redis-auth/password""#
        ) { value, request in
            request.passwordSecret = secretKey(value, else: "password")
            return request.passwordSecret != nil
        },
        SidecarAnnotation(
            suffix: "tls-ca-secret",
            help:
                "With TLS: who signs the upstream's certificate, in a Secret in the pod's namespace, and the key in it (\"ca.crt\" if none is named). Without it: the authorities of the image.",
            expected: #"SECRET or SECRET/KEY, e.g. "redis-ca/ca.crt""#
        ) { value, request in
            request.tlsCA = secretKey(value, else: "ca.crt")
            return request.tlsCA != nil
        },
        SidecarAnnotation(
            suffix: "tls-secret",
            help:
                "With TLS: the certificate that the upstream is shown: a Secret of type kubernetes.io/tls in the pod's namespace.",
            expected: #"SECRET, e.g. "redis-client""#
        ) { value, request in
            guard isObjectName(value[...]) else { return false }
            request.tlsSecret = value
            return true
        },
        SidecarAnnotation(
            suffix: "tls-server-name",
            help: "With TLS: whom the upstream's certificate must name, if that is not the upstream's host.",
            expected: #"a host's name, e.g. "redis.example.org""#
        ) { value, request in
            guard isHost(value[...]) else { return false }
            request.settings.append(.init(key: "tls_server_name", value: value))
            return true
        },
        SidecarAnnotation(
            suffix: "username", help: "The user at the upstream. Needs a password-secret.",
            expected: #"a user of the upstream's ACL, e.g. "app""#
        ) { value, request in
            guard isWord(value) else { return false }
            request.settings.append(.init(key: "username", value: value))
            return true
        },
        SidecarAnnotation(
            suffix: "cpu-request", help: "CPU request of the container.", expected: #"an amount of CPU, e.g. "100m""#
        ) { value, request in
            guard let amount = Quantity(value), amount.thousandths > 0 else { return false }
            request.cpuRequest = amount
            return true
        },
        SidecarAnnotation(
            suffix: "cpu-limit", help: "CPU limit of the container; none if it is not given.",
            expected: #"an amount of CPU of 10m or more, e.g. "1""#
        ) { value, request in
            guard let amount = Quantity(value), amount.thousandths >= 10 else { return false }
            request.cpuLimit = amount
            return true
        },
        SidecarAnnotation(
            suffix: "image", help: "The container's image.",
            expected: #"an image's name, e.g. "ferritelabs/ferrite:\#(Version.current)""#
        ) { value, request in
            guard isImage(value) else { return false }
            request.image = value
            return true
        },
        SidecarAnnotation(
            suffix: "port", help: "The port on which the application finds the sidecar.",
            expected: #"a port from 1 to 65535, e.g. "6380""#
        ) { value, request in
            guard let port = portNumber(value) else { return false }
            request.port = port
            return true
        },
        SidecarAnnotation(
            suffix: "metrics-port", help: "The port of the metrics page and of the probes.",
            expected: #"a port from 1 to 65535, e.g. "9092""#
        ) { value, request in
            guard let port = portNumber(value) else { return false }
            request.metricsPort = port
            return true
        },
        choice(
            "log-level", key: "log_level",
            of: ["trace", "debug", "info", "notice", "warning", "error", "critical"],
            "The least important messages written."),
        SidecarAnnotation(
            suffix: "seccomp", help: "A seccomp profile on the node, e.g. one that allows io_uring.",
            expected: #"a path below the kubelet's seccomp folder, e.g. "profiles/ferrite.json""#
        ) { value, request in
            let parts = value.split(separator: "/", omittingEmptySubsequences: false)
            guard !value.isEmpty, !parts.contains(""), !parts.contains("..") else { return false }
            request.seccompProfile = value
            return true
        },
        SidecarAnnotation(
            suffix: "env", help: "The variable that tells the application where its Redis is.",
            expected: #"a variable's name, e.g. "REDIS_URL""#
        ) { value, request in
            guard let first = value.first, !first.isNumber, value.allSatisfy({ isWord($0) || $0 == "_" }) else {
                return false
            }
            request.envName = value
            return true
        },
        flag("env-override", "Replaces the variable where a container has set it; a URL's database and query stay.") {
            $0.overridesEnv = $1
        },
        flag("native", "A native sidecar (Kubernetes 1.29 and later), or with \"false\" a plain container.") {
            $0.isNative = $1
        },
    ]

    static func named(_ suffix: String) -> SidecarAnnotation? { all.first { $0.suffix == suffix } }

    private static func flag(
        _ suffix: String, _ help: String, _ set: @escaping @Sendable (inout SidecarRequest, Bool) -> Void
    ) -> SidecarAnnotation {
        SidecarAnnotation(suffix: suffix, help: help, expected: #""true" or "false""#) { value, request in
            guard value == "true" || value == "false" else { return false }
            set(&request, value == "true")
            return true
        }
    }

    private static func choice(
        _ suffix: String, key: String? = nil, of choices: [String], _ help: String
    ) -> SidecarAnnotation {
        let quoted = choices.map { "\"\($0)\"" }
        let expected = quoted.dropLast().joined(separator: ", ") + " or " + quoted[quoted.count - 1]
        return SidecarAnnotation(suffix: suffix, help: help, expected: expected) { value, request in
            guard choices.contains(value) else { return false }
            request.settings.append(.init(key: key ?? suffix, value: value))
            return true
        }
    }
}

/// The forms of values.
extension SidecarAnnotation {
    private static func isControl(_ scalar: Unicode.Scalar) -> Bool { scalar.value < 32 || scalar.value == 127 }

    /// Something without blanks.
    private static func isWord(_ text: String) -> Bool {
        !text.isEmpty && !text.contains { $0.isWhitespace } && !text.unicodeScalars.contains(where: isControl)
    }

    private static func isWord(_ character: Character) -> Bool {
        character.isASCII && (character.isLetter || character.isNumber)
    }

    private static func portNumber(_ text: String) -> Int? {
        guard text.allSatisfy({ $0.isASCII && $0.isNumber }), let port = Int(text), (1...65535).contains(port) else {
            return nil
        }
        return port
    }

    /// HOST:PORT or [IPv6]:PORT. What the daemon takes beside it (a URL) is not needed here.
    private static func isAddress(_ text: String) -> Bool {
        guard let colon = text.lastIndex(of: ":"), portNumber(String(text[text.index(after: colon)...])) != nil else {
            return false
        }
        let host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") {
            var address = in6_addr()
            return inet_pton(AF_INET6, String(host.dropFirst().dropLast()), &address) == 1
        }
        return isHost(host)
    }

    /// A name of DNS, with underscores since private ones have them, or an IPv4 address: what ends in a number is one.
    private static func isHost(_ text: Substring) -> Bool {
        let labels = (text.last == "." ? text.dropLast() : text).split(separator: ".", omittingEmptySubsequences: false)
        guard text.utf8.count <= 253, let last = labels.last, labels.allSatisfy(isLabel) else { return false }
        if last.allSatisfy(\.isNumber) || last.lowercased().hasPrefix("0x") {
            var address = in_addr()
            return inet_pton(AF_INET, String(text), &address) == 1
        }
        return true
    }

    private static func isLabel(_ text: Substring) -> Bool {
        text.utf8.count <= 63 && !text.isEmpty && text.first != "-" && text.last != "-"
            && text.allSatisfy { isWord($0) || $0 == "-" || $0 == "_" }
    }

    /// Whether HOST:PORT, however it is spelt, is where the sidecar itself listens.
    static func isOwn(_ address: Substring, port: Int) -> Bool {
        guard let colon = address.lastIndex(of: ":"),
            portNumber(String(address[address.index(after: colon)...])) == port
        else { return false }
        let host = address[..<colon].lowercased()
        guard host.hasPrefix("[") else { return ["localhost", "localhost.", "127.0.0.1", "0.0.0.0"].contains(host) }
        var numeric = in6_addr()
        guard inet_pton(AF_INET6, String(host.dropFirst().dropLast()), &numeric) == 1 else { return false }
        let bytes = withUnsafeBytes(of: numeric) { Array($0) }
        let isMapped = bytes.starts(with: Array(repeating: 0, count: 10) + [255, 255])
        let own: [[UInt8]] = isMapped ? [[127, 0, 0, 1], [0, 0, 0, 0]] : [[0, 0, 0, 1], [0, 0, 0, 0]]
        return own.contains(Array(bytes.suffix(4))) && (isMapped || bytes.prefix(12).allSatisfy { $0 == 0 })
    }

    /// [DOMAIN[:PORT]/]PATH[:TAG][@DIGEST], by the grammar of distribution/reference; a digest is by SHA-256.
    private static func isImage(_ text: String) -> Bool {
        let halves = text.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
        if halves.count == 2, !isDigest(halves[1]) { return false }
        var parts = halves[0].split(separator: "/", omittingEmptySubsequences: false)
        let named = parts.removeLast().split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        if named.count == 2, !isTag(named[1]) { return false }
        parts.append(named[0])
        guard parts.joined(separator: "/").utf8.count <= 255 else { return false }
        if parts.count > 1, isRegistry(parts[0]) { parts.removeFirst() }
        return parts.allSatisfy(isImagePath)
    }

    private static func isDigest(_ text: Substring) -> Bool {
        let digits = text.dropFirst("sha256:".count)
        return text.hasPrefix("sha256:") && digits.utf8.count == 64
            && digits.allSatisfy { "0123456789abcdef".contains($0) }
    }

    private static func isTag(_ text: Substring) -> Bool {
        guard let first = text.first, isWord(first) || first == "_" else { return false }
        return text.utf8.count <= 128 && text.allSatisfy { isWord($0) || "_.-".contains($0) }
    }

    /// A domain that cannot be a part of a path: it has a dot, a port, or is an IPv6 address.
    private static func isRegistry(_ text: Substring) -> Bool {
        if text.hasPrefix("[") {
            let halves = text.dropFirst().split(separator: "]", maxSplits: 1, omittingEmptySubsequences: false)
            guard halves.count == 2, !halves[0].isEmpty,
                halves[0].allSatisfy({ $0.isHexDigit && $0.isASCII || $0 == ":" })
            else { return false }
            return halves[1].isEmpty || halves[1].first == ":" && isDigits(halves[1].dropFirst())
        }
        let halves = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard text.contains(where: { $0 == "." || $0 == ":" }), halves.count == 1 || isDigits(halves[1]) else {
            return false
        }
        return halves[0].split(separator: ".", omittingEmptySubsequences: false).allSatisfy { label in
            !label.isEmpty && label.first != "-" && label.last != "-" && label.allSatisfy { isWord($0) || $0 == "-" }
        }
    }

    private static func isDigits(_ text: Substring) -> Bool {
        !text.isEmpty && text.allSatisfy { $0.isASCII && $0.isNumber }
    }

    /// Lower case and digits, with one dot, one or two underscores, or any number of hyphens between them.
    private static func isImagePath(_ text: Substring) -> Bool {
        guard let first = text.first, let last = text.last, isLower(first), isLower(last) else { return false }
        return text.split(whereSeparator: isLower).allSatisfy { separator in
            [".", "_", "__"].contains(separator) || separator.allSatisfy { $0 == "-" }
        }
    }

    private static func isLower(_ character: Character) -> Bool { isWord(character) && !character.isUppercase }

    /// As the daemon takes it: ms, s, m, h, or seconds; from a millisecond to thirty days.
    private static func isDuration(_ text: String) -> Bool {
        let number = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let factor: Double? =
            switch text[number.endIndex...] {
            case "ms": 0.001
            case "", "s": 1
            case "m": 60
            case "h": 3_600
            default: nil
            }
        let decimals = number.split(separator: ".", omittingEmptySubsequences: false).dropFirst().first?.count
        guard let factor, let value = Double(number), (1...3).contains(decimals ?? 1), number.first != "." else {
            return false
        }
        return (0.001...30 * 86_400).contains(value * factor)
    }

    /// A DNS subdomain (RFC 1123), as names of objects are.
    private static func isObjectName(_ text: Substring) -> Bool {
        text.utf8.count <= 253
            && text.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { part in
                guard let first = part.first, let last = part.last else { return false }
                return isLower(first) && isLower(last) && part.allSatisfy { isLower($0) || $0 == "-" }
            }
    }

    /// SECRET or SECRET/KEY; nil where it is neither.
    private static func secretKey(_ text: String, else key: String) -> SidecarRequest.SecretKey? {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count <= 2, isObjectName(parts[0]), parts.count == 1 || isSecretKey(parts[1]) else { return nil }
        return .init(secret: String(parts[0]), key: parts.count == 2 ? String(parts[1]) : key)
    }

    private static func isSecretKey(_ text: Substring) -> Bool {
        !text.isEmpty && text != "." && !text.hasPrefix("..") && text.utf8.count <= 253
            && text.allSatisfy { isWord($0) || "-._".contains($0) }
    }
}
