import Testing

@testable import Sidecar

@Suite("sizes, durations, addresses, names")
struct ConfigValueTests {
    @Test(
        "sizes take Redis' and Kubernetes' units, all powers of 1024",
        arguments: [
            ("1b", 1), ("2kb", 2048), ("128mb", 134_217_728), ("1gb", 1 << 30), ("128Mi", 134_217_728),
            ("1Gi", 1 << 30),
            ("4Ki", 4096), ("128MB", 134_217_728), ("1.5gb", 1_610_612_736), ("64 mb", 64 << 20), ("128m", 134_217_728),
        ] as [(String, UInt64)])
    func sizes(_ text: String, _ bytes: UInt64) {
        #expect(ByteSize.parse(text) == .bytes(bytes))
    }

    @Test("a size without unit asks for one, anything else is refused")
    func wrongSizes() {
        #expect(ByteSize.parse("128") == .unitMissing)
        for text in ["", "mb", "-1mb", "1.2.3mb", "1tb", "0.0001b", "99999999999gb", "١mb", "1e3mb", ".5mb"] {
            #expect(ByteSize.parse(text) == .malformed, "\(text)")
        }
    }

    @Test(
        "durations take ms, s, m, h and plain seconds",
        arguments: [
            ("100ms", 100), ("5s", 5_000), ("300", 300_000), ("2m", 120_000), ("1h", 3_600_000), ("0.05", 50),
            ("1.5s", 1_500), ("0", 0),
        ]
            as [(String, UInt64)])
    func durations(_ text: String, _ milliseconds: UInt64) {
        #expect(TimeSpan.parse(text) == milliseconds)
    }

    @Test("other durations are refused", arguments: ["", "s", "-1s", "5d", "0.1ms", "1,5s", "99999999999999999999h"])
    func wrongDurations(_ text: String) {
        #expect(TimeSpan.parse(text) == nil)
    }

    @Test("what is shown can be read again")
    func roundTrips() {
        for bytes: UInt64 in [0, 1, 1023, 1024, 1536, 32 << 20, (32 << 20) + 4096, 1 << 40] {
            #expect(ByteSize.parse(ByteSize.show(bytes)) == .bytes(bytes))
        }
        for milliseconds: UInt64 in [0, 1, 999, 1_000, 1_500, 60_000, 90_000, 3_600_000, 3_600_001] {
            #expect(TimeSpan.parse(TimeSpan.show(milliseconds)) == milliseconds)
        }
    }

    @Test(
        "an upstream is a host, with port, brackets or scheme",
        arguments: [
            ("redis:6380", "redis", 6380), ("redis", "redis", 6379), ("10.0.0.1:1", "10.0.0.1", 1),
            ("[::1]:7000", "::1", 7000),
            ("[fe80::1]", "fe80::1", 6379), ("redis://h:1234", "h", 1234), ("redis://h", "h", 6379),
            ("redis://h:1/0", "h", 1),
            ("redis://[::1]:9/", "::1", 9), ("a-b.c_d.svc.cluster.local.:6379", "a-b.c_d.svc.cluster.local.", 6379),
        ] as [(String, String, UInt16)])
    func upstreams(_ text: String, _ host: String, _ port: UInt16) throws {
        let address = try UpstreamAddress(parsing: text)
        #expect(address == UpstreamAddress(host: host, port: port))
        #expect(try UpstreamAddress(parsing: address.description) == address)
    }

    @Test("rediss:// and tls:// ask for TLS", arguments: ["rediss://h:7", "tls://h:7", "REDISS://h:7/0"])
    func upstreamsByTLS(_ text: String) throws {
        let address = try UpstreamAddress(parsing: text)
        #expect(address.isTLS)
        #expect(address.description == "rediss://h:7")
        #expect(try UpstreamAddress(parsing: address.description) == address)
    }

    @Test(
        "a wrong upstream says what is wrong",
        arguments: [
            ("", "no host"), (":6379", "no host"), ("::1", "in brackets"), ("h:0", "no port"), ("h:65536", "no port"),
            ("h:", "no port"),
            ("[::1", "lacks the closing ]"), ("[h]:1", "no IPv6"), ("[::1]x", "follows the ]"),
            ("rediss://u:p@h", "username and password"),
            ("http://h", "not known"), ("redis://u:p@h:1", "username and password"), ("redis://h/5", "SELECT"),
            ("a b:1", "no host name"),
        ])
    func wrongUpstreams(_ text: String, _ part: String) {
        #expect(throws: UpstreamAddress.Malformed.self) { try UpstreamAddress(parsing: text) }
        do throws(UpstreamAddress.Malformed) {
            _ = try UpstreamAddress(parsing: text)
        } catch {
            #expect(error.what.contains(part), "\(error.what)")
            #expect(!error.what.contains("u:p"))
        }
    }

    @Test("the nearest name is found, and none for a stranger")
    func nearest() {
        let names = ConfigKey.all.map(\.name)
        #expect(NearestName.of("local_memry", among: names) == "local_memory")
        #expect(NearestName.of("evicton", among: names) == "eviction")
        #expect(NearestName.of("tll_default", among: names) == "ttl_default")
        #expect(NearestName.of("metrics.prot", among: names) == "metrics.port")
        #expect(NearestName.of("xyzzy", among: names) == nil)
        #expect(NearestName.of(String(repeating: "x", count: 10_000), among: names) == nil)
    }

    @Test("a secret never becomes a string")
    func secrets() {
        let secret = Secret("hunter2")
        var dumped = ""
        dump(secret, to: &dumped)
        for text in ["\(secret)", String(reflecting: secret), dumped, "\([secret])", "\(Optional(secret) as Any)"] {
            #expect(!text.contains("hunter2"))
        }
        #expect(secret.reveal() == "hunter2")
    }
}
