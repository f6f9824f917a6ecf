/// The version of ferritectl: the daemon's, which a test compares.
enum Version {
    static let current = "0.1.0"
}
