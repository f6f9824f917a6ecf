/// The version of the daemon, for --version, the start line, INFO and metrics. ferritectl carries the same.
enum Version {
    static let current = "0.1.0"
}
