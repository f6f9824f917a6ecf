import Testing

@testable import Sidecar

@Suite("The handshake of a link")
struct LinkMachineTests {
    private let nobody = Credentials(username: "", password: Secret(""))
    private let somebody = Credentials(username: "u", password: Secret("p"))

    private func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

    private func hear(_ machine: inout LinkMachine, _ replies: String...) -> LinkMachine.Outcome {
        var outcome = LinkMachine.Outcome.more
        for reply in replies {
            outcome = Array(wire(reply).utf8).withUnsafeBufferPointer { machine.receive($0) }
        }
        return outcome
    }

    @Test("A modern server: RESP3, tracked")
    func modern() {
        var machine = LinkMachine(.tracked(.optIn), somebody)
        #expect(text(machine.begin()).contains("$4\r\nAUTH\r\n$1\r\nu\r\n$1\r\np\r\n$7\r\nSETNAME\r\n"))
        #expect(hear(&machine, FlowWorld.hello, "+OK", "$10|run_id:abc", "+PONG") == .ready)
        #expect(machine.protocolVersion == 3)
        #expect(machine.tracking)
        #expect(machine.runID != 0)
    }

    @Test("Tracking refused: TTL only, and the reason is kept")
    func noTracking() {
        var machine = LinkMachine(.tracked(.optIn), nobody)
        _ = machine.begin()
        #expect(hear(&machine, FlowWorld.hello, "-ERR Unknown CLIENT subcommand", "-NOPERM", "+PONG") == .ready)
        #expect(!machine.tracking)
        #expect(machine.trackingReason == "ERR Unknown CLIENT subcommand")
    }

    @Test("A server before HELLO: RESP2, AUTH, no tracking though it was answered OK")
    func old() {
        var machine = LinkMachine(.tracked(.optIn), somebody)
        _ = machine.begin()
        let outcome = hear(
            &machine, "-ERR unknown command `HELLO`", "+OK", "-NOAUTH Authentication required.",
            "-NOAUTH Authentication required.")
        #expect(
            outcome
                == .send(
                    Credentials.encode("AUTH", "u", "p") + Credentials.encode("INFO", "server")
                        + Credentials.encode("PING")))
        #expect(hear(&machine, "+OK", "$23|run_id:abc|redis_version:5", "+PONG") == .ready)
        #expect(machine.protocolVersion == 2)
        #expect(!machine.tracking)
        #expect(machine.trackingReason == "the upstream does not speak RESP3 (ERR unknown command `HELLO`)")
    }

    @Test("A server that knows HELLO but not all of its words is asked without them")
    func strictHello() {
        var machine = LinkMachine(.plain(protocolVersion: 2), nobody)
        _ = machine.begin()
        #expect(
            hear(&machine, "-ERR syntax error", "$0|", "+PONG")
                == .send(
                    Credentials.encode("HELLO", "2") + Credentials.encode("INFO", "server")
                        + Credentials.encode("PING")))
        #expect(hear(&machine, "%1|$6|server|$7|ferrite", "$0|", "+PONG") == .ready)
        #expect(machine.protocolVersion == 2)
    }

    @Test("HELLO 3 that is answered in RESP2 gives a RESP2 link")
    func answeredInRESP2() {
        var machine = LinkMachine(.tracked(.optIn), nobody)
        _ = machine.begin()
        #expect(hear(&machine, "*2|$5|proto|:2", "+OK", "$0|", "+PONG") == .ready)
        #expect(machine.protocolVersion == 2)
        #expect(!machine.tracking)
    }

    @Test(
        "What makes the link useless is told in the server's words",
        arguments: ["-NOAUTH HELLO must be called …", "-WRONGPASS invalid", "-ERR max number of clients reached"])
    func refused(_ reply: String) {
        var machine = LinkMachine(.tracked(.optIn), somebody)
        _ = machine.begin()
        #expect(hear(&machine, reply) == .failed(.init(reason: String(reply.dropFirst()), kind: .refused)))
    }

    @Test("A link without credentials of ours is for a client that brings its own, if it speaks RESP2")
    func strangers() {
        let wants = "-NOAUTH HELLO must be called with the client already authenticated"
        var machine = LinkMachine(.plain(protocolVersion: 2), nobody)
        _ = machine.begin()
        #expect(hear(&machine, wants, wants, "-NOAUTH Authentication required.") == .ready)
        machine = LinkMachine(.plain(protocolVersion: 3), nobody)
        _ = machine.begin()
        #expect(hear(&machine, wants) == .failed(.init(reason: String(wants.dropFirst()), kind: .refused)))
        machine = LinkMachine(.tracked(.optIn), nobody)
        _ = machine.begin()
        #expect(hear(&machine, wants) == .failed(.init(reason: String(wants.dropFirst()), kind: .refused)))
    }

    @Test("A server that loads is found out by PING")
    func ping() {
        var machine = LinkMachine(.plain(protocolVersion: 2), nobody)
        _ = machine.begin()
        #expect(hear(&machine, "*0", "$0|", "-LOADING data") == .failed(.init(reason: "LOADING data", kind: .busy)))
        machine = LinkMachine(.plain(protocolVersion: 2), nobody)
        _ = machine.begin()
        _ = hear(&machine, "-ERR unknown command 'HELLO'", "$0|", "+PONG")
        #expect(hear(&machine, "$0|", "-LOADING data") == .failed(.init(reason: "LOADING data", kind: .busy)))
        machine = LinkMachine(.plain(protocolVersion: 2), nobody)
        _ = machine.begin()
        #expect(hear(&machine, "*0", "$0|", "-NOPERM this user has no permissions to run the 'ping' command") == .ready)
    }

    @Test("A server that runs a script is no upstream for the tracked link, but takes SCRIPT KILL")
    func script() {
        var machine = LinkMachine(.plain(protocolVersion: 2), nobody)
        _ = machine.begin()
        #expect(hear(&machine, "*0", "$0|", "-BUSY Redis is busy") == .ready)
        machine = LinkMachine(.tracked(.optIn), nobody)
        _ = machine.begin()
        let busy = "-BUSY Redis is busy"
        #expect(
            hear(&machine, FlowWorld.hello, busy, busy, busy)
                == .failed(.init(reason: "BUSY Redis is busy", kind: .busy)))
    }

    @Test("A wrong password of an old server")
    func oldWrongPassword() {
        var machine = LinkMachine(.plain(protocolVersion: 2), somebody)
        _ = machine.begin()
        _ = hear(&machine, "-ERR unknown command 'HELLO'", "-NOAUTH", "-NOAUTH")
        #expect(
            hear(&machine, "-ERR invalid password")
                == .failed(.init(reason: "ERR invalid password", kind: .refused)))
    }

    @Test("A client's RESP3 cannot be had from a RESP2 server")
    func pinnedRESP3() {
        var machine = LinkMachine(.plain(protocolVersion: 3), nobody, name: [])
        #expect(
            text(machine.begin())
                == text(
                    Credentials.encode("HELLO", "3") + Credentials.encode("INFO", "server") + Credentials.encode("PING")
                ))
        #expect(
            hear(&machine, "*2|$5|proto|:2", "$0|", "+PONG")
                == .failed(.init(reason: "the upstream does not speak RESP3")))
    }

    @Test("More answers than questions")
    func surplus() {
        var machine = LinkMachine(.plain(protocolVersion: 2), nobody)
        _ = machine.begin()
        #expect(hear(&machine, "*0", "$0|", "+PONG") == .ready)
        #expect(hear(&machine, "+PONG") == .failed(.init(reason: "it answered more than it was asked")))
    }

    @Test("Any bytes whatever are survived")
    func garbage() {
        let replies = [
            "", "%", "%9999999999999999999", "%2|$5|proto|$9", "*-1", "$-5", "=2|x", "|1|+a|+b", ">", "+", ":",
            "%1|%1|%1",
            "*99999999|", "$5|ab", "-", "!3|abc",
        ]
        for first in replies {
            for second in replies {
                var machine = LinkMachine(.tracked(.optIn), somebody)
                _ = machine.begin()
                _ = hear(&machine, first, second, first, second, "+PONG", first)
            }
        }
    }
}
