import Glibc

/// A real redis-server of this test's own, on a Unix socket, stopped when it is let go, or when this process is no more.
final class RealRedis {
    private let folder: String
    private var pid: pid_t = 0
    private var control: Int32 = -1
    /// Its end tells the shell around the server that it is time.
    private var lifeline: [Int32] = [-1, -1]

    struct Missing: Error {}

    init() throws {
        var name = Array("/tmp/ferrite-model-XXXXXX".utf8CString)
        guard mkdtemp(&name) != nil else { throw Missing() }
        folder = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        guard pipe(&lifeline) == 0 else { throw Missing() }
        for end in lifeline { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        let words = [
            "sh", "-c", "\"$@\" </dev/null & read -r _; kill -9 $!; wait", "sh",
            "redis-server", "--port", "0", "--unixsocket", "\(folder)/socket", "--save", "", "--appendonly", "no",
            "--dir", folder, "--logfile", "\(folder)/log", "--databases", "2", "--enable-debug-command", "yes",
        ]
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) }
        arguments.append(nil)
        defer { for argument in arguments { free(argument) } }
        /* None of our output is its own: it would keep a reader of it waiting. */
        var files = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&files)
        defer { posix_spawn_file_actions_destroy(&files) }
        posix_spawn_file_actions_adddup2(&files, lifeline[0], 0)
        posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0)
        posix_spawn_file_actions_adddup2(&files, 1, 2)
        /* A thread of a pool blocks all signals; a shell that hears of no child's end waits for ever. */
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        guard posix_spawnp(&pid, "sh", &files, &attributes, &arguments, environ) == 0 else { throw Missing() }
        for _ in 0..<500 {
            control = connect()
            if control >= 0 {
                expireNothingByItself()
                return
            }
            usleep(10_000)
        }
        throw Missing()
    }

    deinit {
        if control >= 0 { close(control) }
        for end in lifeline where end >= 0 { close(end) }
        if pid > 0 { waitpid(pid, nil, 0) }
        for file in ["socket", "log"] { unlink("\(folder)/\(file)") }
        rmdir(folder)
    }

    /// A new connection, or -1.
    func connect() -> Int32 {
        let socket = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { path in
            path.copyBytes(from: "\(folder)/socket".utf8)
        }
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(socket, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        if result == 0 { return socket }
        close(socket)
        return -1
    }

    func send(_ bytes: [UInt8], on socket: Int32) {
        var sent = 0
        while sent < bytes.count {
            let some = bytes[sent...].withUnsafeBytes { write(socket, $0.baseAddress, $0.count) }
            if some <= 0 { return }
            sent += some
        }
    }

    /// Returns when everything that was sent before has been carried out and answered. Twice, since the server writes
    /// what it has to say in one turn in an order of its own.
    func settle() {
        for _ in 0..<2 {
            send(Array("PING\r\n".utf8), on: control)
            var answer = [UInt8](repeating: 0, count: 64)
            _ = read(control, &answer, answer.count)
        }
    }

    /* Else it would notice, and announce, that a key is over at a moment of its own. */
    private func expireNothingByItself() {
        send(Array("DEBUG SET-ACTIVE-EXPIRE 0\r\n".utf8), on: control)
        var answer = [UInt8](repeating: 0, count: 64)
        _ = read(control, &answer, answer.count)
    }

    /// What has come on a connection.
    func received(on socket: Int32) -> [UInt8] {
        var bytes: [UInt8] = []
        var some = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = recv(socket, &some, some.count, 0x40)
            if count <= 0 { return bytes }
            bytes += some[0..<count]
        }
    }
}
