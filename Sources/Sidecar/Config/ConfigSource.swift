/// Where a value came from. Later cases override earlier ones.
enum ConfigSource: Sendable, Equatable, CustomStringConvertible {
    case standard
    /// The default made by a container's memory limit, or a value clamped to it.
    case memoryLimit(String)
    case file(name: String, line: Int)
    case environment(name: String)
    case flag(String)

    /// In the file.
    var line: Int? {
        if case .file(_, let line) = self { line } else { nil }
    }

    /// The same file, another line.
    func at(line: Int?) -> ConfigSource {
        guard case .file(let name, _) = self, let line else { return self }
        return .file(name: name, line: line)
    }

    var description: String {
        switch self {
        case .standard: "default"
        case .memoryLimit(let why): why
        case .file(let name, let line): "\(name):\(line)"
        case .environment(let name): name
        case .flag(let flag): flag
        }
    }
}
