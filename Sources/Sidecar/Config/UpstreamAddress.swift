/// Where the central server is: a name or a numeric address, resolved again at every connect.
struct UpstreamAddress: Sendable, Equatable, CustomStringConvertible {
    /// Without brackets.
    var host: String
    var port: UInt16

    var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}
