import Testing

@testable import Sidecar

@Suite("A link's queue of replies to come")
struct OwedTests {
    private func entry(_ ticket: UInt64, _ awaited: Awaited = .answer, sentNs: UInt64 = 0) -> OwedReply {
        let isTimed = awaited == .expiry || awaited == .value
        return OwedReply(ticket: ticket, sentNs: sentNs, awaited: awaited, flags: isTimed ? .wantsValue : [])
    }

    @Test("Entries leave in the order in which they came, across growth and wrapping")
    func order() {
        var owed = Owed(capacity: 4)
        var next: UInt64 = 0
        var expected: UInt64 = 0
        var grown = 0
        for round in 0..<100 {
            for _ in 0...(round % 7) {
                grown += owed.append(entry(next))
                next += 1
            }
            for _ in 0..<(round % 5) {
                guard let first = owed.takeFirst() else { break }
                #expect(first.ticket == expected)
                expected += 1
            }
        }
        while let first = owed.takeFirst() {
            #expect(first.ticket == expected)
            expected += 1
        }
        #expect(expected == next)
        #expect(owed.bytes == 4 * MemoryLayout<OwedReply>.stride + grown)
    }

    @Test("An entry is 24 bytes")
    func size() { #expect(MemoryLayout<OwedReply>.stride == 24) }

    @Test("The first timed entry is found behind others, given up once, and stays owed")
    func timed() {
        var owed = Owed(capacity: 4)
        _ = owed.append(entry(1))
        #expect(owed.firstTimed() == nil)
        _ = owed.append(entry(2, .expiry, sentNs: 5))
        _ = owed.append(entry(3))
        _ = owed.append(entry(4, .value, sentNs: 6))
        #expect(owed.firstTimed()?.ticket == 2)
        owed.giveUpFirstTimed()
        #expect(owed.firstTimed()?.ticket == 4)
        owed.removeFirst()
        #expect(owed.firstIsGivenUp == true)
        owed.removeFirst()
        owed.removeFirst()
        #expect(owed.firstTimed()?.ticket == 4)
        #expect(owed.firstIsGivenUp == false)
        owed.removeFirst()
        #expect(owed.firstTimed() == nil)
        #expect(owed.first == nil)
    }

    @Test("Members of a group are reached behind the first")
    func members() {
        var owed = Owed(capacity: 4)
        for ticket in 0..<3 { _ = owed.append(entry(UInt64(ticket))) }
        #expect(owed.entry(behindFirst: 2)?.pointee.ticket == 2)
        #expect(owed.entry(behindFirst: 3) == nil)
    }
}

@Suite("Small machines")
struct SmallMachineTests {
    @Test("Ids are found, and found again after others have gone")
    func idTable() {
        var table = IdTable(holding: 100)
        var expected: [UInt64: Int] = [:]
        var generator = SystemRandomNumberGenerator()
        for step in 0..<20_000 {
            let id = UInt64.random(in: 1...150, using: &generator) << 32 | 7
            if expected[id] != nil {
                expected[id] = nil
                table.remove(id)
            } else if expected.count < 100 {
                expected[id] = step
                table.insert(id, step)
            }
            table.remove(9_999)
            #expect(table[id] == expected[id])
        }
        for id in 1...150 as ClosedRange<UInt64> { #expect(table[id << 32 | 7] == expected[id << 32 | 7]) }
    }

    @Test("The backoff doubles to a second, within a fifth")
    func backoff() {
        for seed in 0..<50 as Range<UInt64> {
            var backoff = Backoff(seed: seed)
            var base: UInt64 = 10_000_000
            for _ in 0..<12 {
                let pause = backoff.next()
                #expect(pause >= base / 10 * 8 && pause <= base / 10 * 12)
                base = min(base * 2, 1_000_000_000)
            }
            backoff.reset()
            #expect(backoff.next() <= 12_000_000)
        }
    }

    @Test("The heartbeat with a link_timeout shorter than its lateness only gives up")
    func shortLinkTimeout() {
        var heartbeat = Heartbeat(linkTimeoutNs: 200_000_000, nowNs: 0)
        #expect(heartbeat.due(1_000_000_000) == .ping)
        heartbeat.pinged(1_000_000_000)
        #expect(heartbeat.due(1_199_999_999) == .none)
        #expect(heartbeat.due(1_200_000_000) == .giveUp)
    }

    @Test("Requests are read in both forms")
    func requests() {
        func arguments(_ text: String) -> [String] {
            Array(text.utf8).withUnsafeBufferPointer { Request($0).arguments }
        }
        func count(_ text: String) -> Int { Array(text.utf8).withUnsafeBufferPointer { Request.argumentCount($0) } }
        #expect(arguments("*2\r\n$4\r\nINFO\r\n$3\r\nall\r\n") == ["INFO", "all"])
        #expect(arguments("info  all\r\n") == ["info", "all"])
        #expect(count("subscribe \"a b\" 'c' d\\\"\r\n") == 4)
        #expect(count("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n$1\r\nb\r\n") == 3)
        #expect(count("*-5\r\n") == 0)
        #expect(count("*99999999999999999999\r\n") == 0)
        #expect(arguments("") == [])
    }

    @Test("Replies of any shape are read or refused, never trusted")
    func replies() {
        func integer(_ text: String) -> Int64? { Array(text.utf8).withUnsafeBufferPointer { Reply($0).integer } }
        #expect(integer(":-2\r\n") == -2)
        #expect(integer(":9223372036854775807\r\n") == .max)
        #expect(integer(":9223372036854775808\r\n") == nil)
        #expect(integer(":\r\n") == nil)
        #expect(integer(":1") == nil)
        #expect(integer("$1\r\n") == nil)
        func skips(_ text: String) -> Bool {
            Array(text.utf8).withUnsafeBufferPointer { bytes in
                var reader = ReplyReader(bytes)
                return reader.skip()
            }
        }
        #expect(skips("%1\r\n+a\r\n*2\r\n:1\r\n$3\r\nabc\r\n"))
        #expect(!skips("%1\r\n+a\r\n*2\r\n:1\r\n"))
        #expect(!skips("*9223372036854775807\r\n"))
        #expect(!skips("$5\r\nab\r\n"))
    }
}
