import Foundation
import Logging
import Synchronization
import Testing

@testable import Sidecar

@Suite("the log")
struct MetricsLogTests {
    private func record(_ message: String, _ metadata: Logger.Metadata = [:], _ level: Logger.Level = .info)
        -> LogRecord
    {
        LogRecord(level: level, message: message, metadata: metadata, seconds: 1_700_000_000, milliseconds: 7)
    }

    @Test("pretty lines are for people and cannot be forged")
    func pretty() {
        let text = LogText(format: .pretty)
        #expect(
            text.line(record("hello", ["b": "2", "a": "x y"]))
                == "2023-11-14T22:13:20.007Z info     hello a=\"x y\" b=2\n")
        #expect(
            text.line(record("a\nb", ["k": "v\u{1B}[31m"]))
                == "2023-11-14T22:13:20.007Z info     a\\nb k=v\\u001B[31m\n")
    }

    @Test("json lines are one object each")
    func json() throws {
        let line = LogText(format: .json).line(record("say \"hi\"\n", ["n": "1"], .warning))
        #expect(line.hasSuffix("}\n") && !line.dropLast().contains("\n"))
        let object = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: String])
        #expect(
            object == ["time": "2023-11-14T22:13:20.007Z", "level": "warning", "message": "say \"hi\"\n", "n": "1"])
    }

    @Test("a full queue drops and counts, and never waits")
    func drops() {
        let queue = LogQueue(capacity: 4)
        for number in 0..<10 { queue.put(record("\(number)")) }
        #expect(queue.dropped == 6)
        var taken: [String] = []
        while !queue.isEmpty {
            taken.append(queue.take().message)
            queue.written()
        }
        #expect(taken == ["0", "1", "2", "3"])
        queue.put(record("again"))
        #expect(queue.take().message == "again")
    }

    @Test("many threads at once lose nothing but what is counted, and each keeps its order")
    func threads() {
        let queue = LogQueue(capacity: 64)
        let done = Atomic<Int>(0)
        withExtendedLifetime(queue) {
            let finished = DispatchGroup()
            let threads = 4
            let each = 5_000
            for thread in 0..<threads {
                finished.enter()
                Thread {
                    for number in 0..<each { queue.put(record("\(thread) \(number)")) }
                    done.wrappingAdd(1, ordering: .releasing)
                    finished.leave()
                }.start()
            }
            var last = [Int](repeating: -1, count: threads)
            var count = 0
            while done.load(ordering: .acquiring) < threads || !queue.isEmpty {
                if queue.isEmpty { continue }
                let parts = queue.take().message.split(separator: " ").compactMap { Int($0) }
                queue.written()
                #expect(parts[1] > last[parts[0]])
                last[parts[0]] = parts[1]
                count += 1
            }
            finished.wait()
            #expect(UInt64(count) + queue.dropped == UInt64(threads * each))
        }
    }

    @Test("lines reach the file, in order, through swift-log")
    func output() throws {
        var ends: [Int32] = [0, 0]
        try #require(pipe(&ends) == 0)
        let output = LogOutput(format: .pretty, fd: ends[1], capacity: 64)
        output.start()
        var logger = Logger(label: "test") { _ in SidecarLogHandler(output: output, level: .info) }
        logger[metadataKey: "who"] = "me"
        logger.debug("not this")
        logger.info("one")
        logger.error("two", metadata: ["who": "you"])
        /* The writer is of the lowest class: long, for a busy machine. */
        output.flush(milliseconds: 60_000)
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = read(ends[0], &bytes, bytes.count)
        let lines = String(decoding: bytes[..<max(0, count)], as: UTF8.self).split(separator: "\n")
        #expect(
            lines.map { $0.split(separator: " ", maxSplits: 1).last.map(String.init) ?? "" } == [
                "info     one who=me", "error    two who=you",
            ])
    }

    @Test("the watchdog calls a turn of more than two seconds stuck")
    func watchdog() {
        let watchdog = Watchdog(
            log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, lastTurnNs: { 5_000_000_000 })
        #expect(watchdog.stuckNs(nowNs: 5_000_000_000) == nil)
        #expect(watchdog.stuckNs(nowNs: 7_000_000_000) == nil)
        #expect(watchdog.stuckNs(nowNs: 7_000_000_001) == 2_000_000_001)
        #expect(watchdog.stuckNs(nowNs: 1) == nil)
        let early = Watchdog(log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, lastTurnNs: { 0 })
        #expect(early.stuckNs(nowNs: .max) == nil)
    }

    @Test("a thread of the control plane runs under SCHED_IDLE and has its name")
    func threadClass() throws {
        let seen = Mutex<(policy: Int32, name: String)?>(nil)
        let done = DispatchSemaphore(value: 0)
        withExtendedLifetime(seen) {
            ControlThread.start(name: "ferrite-test") {
                ControlThread.enterIdleClass()
                let name = TextFile.read("/proc/thread-self/comm", bytesMax: 64) ?? ""
                seen.withLock { $0 = (sched_getscheduler(0), name) }
                done.signal()
            }
            done.wait()
            #expect(seen.withLock { $0?.policy } == 5)
            #expect(seen.withLock { $0?.name } == "ferrite-test\n")
        }
    }
}
