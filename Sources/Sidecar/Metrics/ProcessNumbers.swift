import Glibc

/// What the kernel says about this process.
struct ProcessNumbers: Sendable, Equatable {
    var residentBytes: UInt64 = 0
    /// VmHWM: the most that was ever resident.
    var residentPeakBytes: UInt64 = 0
    /// RssAnon: what is ours alone, not mapped from files.
    var anonymousBytes: UInt64 = 0
    /// User and system time of all threads.
    var cpuSeconds: Double = 0
    /// Wall clock, Unix time.
    var startSeconds: Double = 0

    /// Control thread: reads files.
    static func read(startSeconds: Double) -> ProcessNumbers {
        var numbers = ProcessNumbers(startSeconds: startSeconds)
        if let status = TextFile.read("/proc/self/status", bytesMax: 65536) { numbers.take(status: status) }
        var usage = rusage()
        if getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage) == 0 {
            numbers.cpuSeconds = seconds(usage.ru_utime) + seconds(usage.ru_stime)
        }
        return numbers
    }

    mutating func take(status: String) {
        for line in status.split(separator: "\n") {
            let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
            guard words.count >= 2, let kilobytes = UInt64(words[1]) else { continue }
            switch words[0] {
            case "VmRSS:": residentBytes = kilobytes << 10
            case "VmHWM:": residentPeakBytes = kilobytes << 10
            case "RssAnon:": anonymousBytes = kilobytes << 10
            default: break
            }
        }
    }

    private static func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
}
