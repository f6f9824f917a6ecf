/// Credentials — how the sidecar names itself to the upstream, in RESP. Kept encoded so that the text of the password
/// is nowhere else.
struct Credentials: Sendable {
    /// " AUTH user password" as HELLO's arguments; empty without a password.
    private let helloArguments: [[UInt8]]
    private let authArguments: [[UInt8]]

    init(username: String, password: Secret) {
        if password.isEmpty {
            helloArguments = []
            authArguments = []
        } else {
            let user = Array(username.utf8)
            let secret = Array(password.reveal().utf8)
            helloArguments = [Array("AUTH".utf8), user.isEmpty ? Array("default".utf8) : user, secret]
            authArguments = user.isEmpty ? [secret] : [user, secret]
        }
    }

    var isEmpty: Bool { authArguments.isEmpty }

    /// AUTH as servers without HELLO, and links after RESET, want it.
    var auth: [UInt8] { Self.encode([Array("AUTH".utf8)] + authArguments) }

    func hello(protocolVersion: UInt8, name: [UInt8]) -> [UInt8] {
        var arguments = [Array("HELLO".utf8), [UInt8(ascii: "0") &+ protocolVersion]] + helloArguments
        if !name.isEmpty { arguments += [Array("SETNAME".utf8), name] }
        return Self.encode(arguments)
    }

    static func encode(_ words: String...) -> [UInt8] { encode(words.map { Array($0.utf8) }) }

    static func encode(_ arguments: [[UInt8]]) -> [UInt8] {
        var bytes = Array("*\(arguments.count)\r\n".utf8)
        for argument in arguments {
            bytes += Array("$\(argument.count)\r\n".utf8)
            bytes += argument
            bytes += Array("\r\n".utf8)
        }
        return bytes
    }
}
