/// Truth — what the upstream held when: the yardstick for every answer.
///
/// Each top-level command of the upstream has a number; what one command (a transaction, a script) does happens at one
/// instant. A key's timeline lists its values with the number at which each began.
struct Truth {
    struct Version {
        /// Hash of the value; 0: no such key.
        var value: UInt64
        /// It began with this command.
        var from: Int
        /// Simulated time at which it began.
        var fromNs: UInt64
        /// Simulated time at which it ends by itself; UInt64.max: never.
        var expiresNs: UInt64
    }

    private(set) var timelines: [[Version]]
    /// Number of the last command.
    private(set) var now = 0
    /// Token -> number of the command that carried it out.
    private(set) var executed: [Int]
    /// Tokens that were carried out more than once.
    private(set) var repeated: [Int] = []
    /// Writes that have no place for a token, by their words: when they were carried out, and on which connection.
    private var changes: [[UInt8]: [(number: Int, connection: Int)]] = [:]

    init(keys: Int) {
        timelines = Array(repeating: [Version(value: 0, from: 0, fromNs: 0, expiresNs: .max)], count: keys)
        executed = []
    }

    mutating func begin() { now += 1 }

    mutating func execute(token: Int) {
        while executed.count <= token { executed.append(0) }
        if executed[token] != 0 { repeated.append(token) }
        executed[token] = now
    }

    /// Number of the command that carried a token out; 0: none has.
    func execution(of token: Int) -> Int { token < executed.count ? executed[token] : 0 }

    mutating func note(change words: [[UInt8]], connection: Int) {
        changes[Array(words.joined(separator: [32])), default: []].append((now, connection))
    }

    /// The first command behind `began` that had these words, on one of those connections: at the latest this one. Nil:
    /// there was none.
    func change(_ words: [[UInt8]], after began: Int, on isOurs: (Int) -> Bool) -> Int? {
        changes[Array(words.joined(separator: [32]))]?.first { $0.number > began && isOurs($0.connection) }?.number
    }

    mutating func record(key: Int, value: UInt64, nowNs: UInt64, expiresNs: UInt64) {
        let last = timelines[key].count - 1
        let version = Version(value: value, from: now, fromNs: nowNs, expiresNs: expiresNs)
        if timelines[key][last].from == now {
            timelines[key][last] = version
        } else if timelines[key][last].value != value || timelines[key][last].expiresNs != expiresNs {
            timelines[key].append(version)
        }
    }

    func current(_ key: Int) -> Version { timelines[key][timelines[key].count - 1] }

    /// The command that ended version `index` of a key; Int.max: none yet.
    func end(_ key: Int, _ index: Int) -> Int {
        index + 1 < timelines[key].count ? timelines[key][index + 1].from : .max
    }

    /// When that was.
    func endNs(_ key: Int, _ index: Int) -> UInt64 {
        index + 1 < timelines[key].count ? timelines[key][index + 1].fromNs : .max
    }

    static func hash(_ bytes: [UInt8]) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return hash | 1
    }
}
