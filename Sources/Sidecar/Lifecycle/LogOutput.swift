import Glibc
import Logging

/// Where log lines go: a queue, and a thread that formats them and writes them to standard error.
///
/// Callers never wait: not for the disk, not for a pipe that nobody reads. What does not fit is dropped and counted,
/// and the next line that is written says how many.
final class LogOutput: Sendable {
    private let queue: LogQueue
    private let text: LogText
    private let fd: Int32

    init(format: SidecarConfig.LogFormat, fd: Int32 = STDERR_FILENO, capacity: Int = 1024) {
        queue = LogQueue(capacity: capacity)
        text = LogText(format: format, colours: format == .pretty && isatty(fd) == 1 && getenv("NO_COLOR") == nil)
        self.fd = fd
    }

    var dropped: UInt64 { queue.dropped }

    /// Makes the writer's thread, of SCHED_IDLE class whatever the caller's is.
    func start() {
        ControlThread.start(name: "ferrite-log") {
            ControlThread.enterIdleClass()
            self.write()
        }
    }

    /// Any thread; never waits.
    func put(_ record: LogRecord) { queue.put(record) }

    /// Waits until all that was logged so far is written, at most for `milliseconds`. Before exit only.
    func flush(milliseconds: Int = 500) {
        for _ in 0..<milliseconds where !queue.isEmpty { usleep(1_000) }
    }

    private func write() -> Never {
        var droppedReported: UInt64 = 0
        while true {
            let record = queue.take()
            var lines = text.line(record)
            let dropped = queue.dropped
            if dropped > droppedReported {
                var note = record
                note.level = .warning
                note.message = "\(dropped - droppedReported) log lines were dropped: they came faster than they could be written"
                note.metadata = [:]
                lines += text.line(note)
                droppedReported = dropped
            }
            writeAll(lines)
            queue.written()
        }
    }

    /// A closed or broken output is no reason to stop.
    private func writeAll(_ lines: String) {
        var lines = lines
        lines.withUTF8 { bytes in
            var rest = UnsafeRawBufferPointer(bytes)
            while let base = rest.baseAddress, !rest.isEmpty {
                let count = Glibc.write(fd, base, rest.count)
                if count < 0 {
                    if errno == EINTR { continue }
                    if errno == EAGAIN {
                        var poll = pollfd(fd: fd, events: Int16(POLLOUT), revents: 0)
                        Glibc.poll(&poll, 1, -1)
                        continue
                    }
                    return
                }
                rest = UnsafeRawBufferPointer(rebasing: rest[count...])
            }
        }
    }
}

/// swift-log's door to `LogOutput`.
struct SidecarLogHandler: LogHandler {
    let output: LogOutput
    var logLevel: Logger.Level
    var metadata: Logger.Metadata = [:]
    var metadataProvider: Logger.MetadataProvider?

    init(output: LogOutput, level: Logger.Level) {
        self.output = output
        logLevel = level
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        var all = metadata
        if let provided = metadataProvider?.get() { all.merge(provided) { $1 } }
        if let own = event.metadata { all.merge(own) { $1 } }
        if let error = event.error { all["error"] = "\(error)" }
        output.put(
            LogRecord(
                level: event.level, message: event.message.description, metadata: all, seconds: now.tv_sec,
                milliseconds: now.tv_nsec / 1_000_000))
    }
}

extension SidecarConfig.LogLevel {
    var logger: Logger.Level {
        switch self {
        case .trace: .trace
        case .debug: .debug
        case .info: .info
        case .notice: .notice
        case .warning: .warning
        case .error: .error
        case .critical: .critical
        }
    }
}
