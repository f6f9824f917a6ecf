import Synchronization
import Testing

@testable import Sidecar

@Suite("What the admin socket answers")
struct AdminPagesTests {
    private final class Loop: Steered {
        let patterns = Mutex<[[UInt8]]>([])
        let answer: PrefetchAnswer

        init(_ answer: PrefetchAnswer = .begun) { self.answer = answer }

        func dropAll() async {}
        func drop(matching pattern: [UInt8]) async -> UInt64 {
            patterns.withLock { $0.append(pattern) }
            return 3
        }
        func prefetch(_ pattern: [UInt8]) async -> PrefetchAnswer {
            patterns.withLock { $0.append(pattern) }
            return answer
        }
        func bypass(_ isOn: Bool) async -> Bool { isOn }
        func deadLetters() async -> ([DeadLetter], nowNs: UInt64) { ([], nowNs: 0) }
    }

    @Test("A pattern is taken byte for byte, whether it is text or not")
    func bytes() async {
        let loop = Loop()
        let pages = AdminPages(loop: loop, drain: {})
        #expect(await pages.page("POST", "/flush", query: "pattern=k%3A%FF*").status == 200)
        #expect(await pages.page("POST", "/prefetch", query: "pattern=%00%C3x").status == 200)
        #expect(loop.patterns.withLock { $0 } == [[0x6B, 0x3A, 0xFF, 0x2A], [0x00, 0xC3, 0x78]])
        #expect(await pages.page("POST", "/flush", query: "pattern=a*").body == "flushed: 3 keys that match a*\n")
    }

    @Test("A prefetch that does not begin is an error that says why")
    func prefetch() async {
        for (answer, status, word) in [
            (PrefetchAnswer.begun, 200, "begun"), (.underWay, 409, "under way"), (.bypassed, 409, "bypass"),
            (.unreachable, 503, "not connected"),
        ] {
            let page = await AdminPages(loop: Loop(answer), drain: {}).page("POST", "/prefetch", query: "pattern=a")
            #expect(page.status == status && page.body.contains(word))
        }
    }
}
