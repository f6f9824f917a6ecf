import Glibc
import Logging

/// A log record as a line: `pretty` for people, `json` for collectors.
struct LogText: Sendable {
    var format: SidecarConfig.LogFormat
    /// Only for people at a terminal.
    var colours = false

    func line(_ record: LogRecord) -> String {
        switch format {
        case .pretty: pretty(record)
        case .json: json(record)
        }
    }

    private func pretty(_ record: LogRecord) -> String {
        let level = record.level.rawValue
        let word = level + String(repeating: " ", count: max(0, 8 - level.count))
        var line =
            "\(Self.time(record)) \(colour(record.level))\(word)\(colours ? "\u{1B}[0m" : "") \(Self.oneLine(record.message))"
        for (key, value) in record.metadata.sorted(by: { $0.key < $1.key }) {
            let text = Self.oneLine(value.description)
            line += " \(key)=\(text.isEmpty || text.contains(" ") ? TOMLText.quote(text) : text)"
        }
        return line + "\n"
    }

    private func json(_ record: LogRecord) -> String {
        var members: [(String, JSON)] = [
            ("time", .string(Self.time(record))), ("level", .string(record.level.rawValue)),
            ("message", .string(record.message)),
        ]
        for (key, value) in record.metadata.sorted(by: { $0.key < $1.key }) {
            members.append((key, .string(value.description)))
        }
        return JSON.object(members).text + "\n"
    }

    private func colour(_ level: Logger.Level) -> String {
        guard colours else { return "" }
        return switch level {
        case .trace, .debug: "\u{1B}[2m"
        case .info, .notice: "\u{1B}[32m"
        case .warning: "\u{1B}[33m"
        case .error, .critical: "\u{1B}[31m"
        }
    }

    /// What comes from outside must not forge a line.
    private static func oneLine(_ text: String) -> String {
        guard text.utf8.contains(where: { $0 < 0x20 || $0 == 0x7F }) else { return text }
        return String(TOMLText.quote(text).dropFirst().dropLast())
    }

    /// 2026-01-31T12:00:00.123Z
    private static func time(_ record: LogRecord) -> String {
        var seconds = time_t(record.seconds)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func two(_ value: Int32) -> String { value < 10 ? "0\(value)" : "\(value)" }
        let milliseconds = String(record.milliseconds + 1_000).dropFirst()
        return "\(parts.tm_year + 1900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))T"
            + "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec)).\(milliseconds)Z"
    }
}
