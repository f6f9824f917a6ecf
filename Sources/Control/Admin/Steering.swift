import ArgumentParser
import Glibc

/// Where the sidecar's admin socket is, for every command that steers.
struct AdminOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The sidecar's admin_socket (default: FERRITE_ADMIN_SOCKET, or \(AdminClient.standardPath)).",
            valueName: "path"))
    var socket: String?

    /// Asks, and prints the answer; an error goes to standard error and ends with 69.
    func ask(_ method: String, _ target: String) throws {
        let path = socket ?? getenv("FERRITE_ADMIN_SOCKET").map { String(cString: $0) } ?? AdminClient.standardPath
        do throws(AdminClient.Failure) {
            print(try AdminClient(path: path).request(method, target), terminator: "")
        } catch {
            var text = "ferritectl: \(error.sentence)" + (error.sentence.hasSuffix("\n") ? "" : "\n")
            text.withUTF8 { bytes in _ = write(STDERR_FILENO, bytes.baseAddress, bytes.count) }
            throw ExitCode(69)
        }
    }

    /// An argument, percent-encoded for a query.
    static func encoded(_ argument: String) -> String {
        bytes(of: argument).map { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."):
                String(UnicodeScalar(byte))
            default: "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
            }
        }.joined()
    }

    /// As it was given: a key may be of any bytes, and what is not UTF-8 has become U+FFFD in a String.
    private static func bytes(of argument: String) -> [UInt8] {
        for given in UnsafeBufferPointer(start: CommandLine.unsafeArgv, count: Int(CommandLine.argc)) {
            guard let given, String(cString: given) == argument else { continue }
            return Array(UnsafeRawBufferPointer(start: given, count: strlen(given)))
        }
        return Array(argument.utf8)
    }
}

struct Flush: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Drop what a sidecar has cached, or the keys that match a pattern.",
        discussion: "Only the sidecar's copies: the upstream keeps its keys, and acknowledged writes are still sent.")

    @Argument(help: "As Redis' KEYS takes it, e.g. 'user:*'. Without one everything goes.")
    var pattern: String?
    @OptionGroup var admin: AdminOptions

    func run() throws {
        try admin.ask("POST", "/flush" + (pattern.map { "?pattern=" + AdminOptions.encoded($0) } ?? ""))
    }
}

struct PrefetchKeys: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "prefetch", abstract: "Have a sidecar fetch the keys that match a pattern.")

    @Argument(help: "As Redis' SCAN takes it, e.g. 'session:*'.")
    var pattern: String
    @OptionGroup var admin: AdminOptions

    func run() throws { try admin.ask("POST", "/prefetch?pattern=" + AdminOptions.encoded(pattern)) }
}

struct Bypass: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Serve nothing from a sidecar's cache, until it is off again.")

    enum Switch: String, ExpressibleByArgument, CaseIterable {
        case on, off
    }

    @Argument(help: "on or off.")
    var state: Switch
    @OptionGroup var admin: AdminOptions

    func run() throws { try admin.ask("POST", "/bypass?\(state.rawValue)") }
}

struct Drain: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Have a sidecar end as by SIGTERM: when no client is connected, or after drain_timeout.")

    @OptionGroup var admin: AdminOptions

    func run() throws { try admin.ask("POST", "/drain") }
}

struct DeadLetters: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show acknowledged writes that were given up: when, which key, and the upstream's words.")

    @OptionGroup var admin: AdminOptions

    func run() throws { try admin.ask("GET", "/dead-letters") }
}
