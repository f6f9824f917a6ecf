import CFastPath

/// A command that a client has sent, and what its reply must satisfy.
struct Asked {
    enum Kind {
        /// A read of strings, at one instant.
        case read([Int])
        /// A write of these keys, none for keys that are not of the truth.
        case write([Int], token: Int)
        /// A write of these keys in whose words there is no place for a token; it may return what one of them held.
        case change([Int], returns: Int?)
        /// A read of all keys, which it does not name.
        case unnamedRead
        /// EXEC of a transaction that reads these keys and does nothing else.
        case readTogether([Int])
        /// A script that writes a key which it does not declare.
        case script([Int], token: Int)
        /// A command that the upstream must have carried out when it is answered without an error.
        case pass(token: Int)
        /// Answered with exactly this.
        case exactly(RESPValue)
        /// Anything.
        case plain
        case queued
        /// By CLIENT REPLY not at all, unless that is refused. What comes with it and is answered stands behind it.
        case unanswered
        case reset
        case watch
        /// When it is refused, what follows is carried out at once, as by Redis.
        case multi
        /// A read under WATCH.
        case watchedRead(Int)
        /// Writes of these keys were queued before it; perhaps behind a `watchedRead`.
        case exec(tokens: [Int], keys: [Int], isWatched: Bool)
        case pop
        case subscribe
        /// A script that reads a key.
        case scriptRead(Int)

        /// What it shows of a key counts while the upstream is unreachable, too.
        var isOfPlainCommand: Bool {
            switch self {
            case .read, .change, .unnamedRead, .readTogether: true
            default: false
            }
        }
    }

    var kind: Kind
    var words: [[UInt8]]
    var atNs: UInt64
    /// The last command that the upstream had carried out then.
    var began: Int
    /// Of the pod when it was sent.
    var floor: Int
    /// By key of `read`: the least version, by the command with which it began.
    var leastRead: [Int]
    /// The same without what scripts have read and written: what holds while the upstream is unreachable.
    var leastServed: [Int]
    /// By key of `read`: what must not have ended before.
    var leastWritten: [Int]
    /// By key of `read`: when the oldest read of it was sent that was unanswered in the pod, this one included.
    var flightsSinceNs: [UInt64]
    /// Registers: its number, and by key of `read` what is old.
    var number = 0
    var floors: [Int] = []

    var text: String { Self.text(of: words) }

    static func text(of words: [[UInt8]]) -> String {
        words.map { String(decoding: $0.prefix(24), as: UTF8.self) }.joined(separator: " ")
    }
}

/// A connection of the application.
final class SimClient {
    enum Habit {
        case plain, transactions, subscriber, worker, scripts, otherDatabase
    }

    let index: Int
    let pod: Pod
    let habit: Habit
    var wire: fp_wire = 0
    var isConnected = false
    var reader = RESPReader()
    var asked: [Asked] = []
    var commandsLeft: Int
    var deafUntilNs: UInt64 = 0
    var isWatching = false
    var isInMulti = false
    /// What it watches, and how it read it.
    var watchedRead: (key: Int, value: UInt64)?
    /// By key: what its own earlier answers have shown, for pipelined commands.
    var ownRead: [Int]
    /// The same of plain reads alone, which are answered in order whatever the upstream does.
    var ownServed: [Int]
    var ownWritten: [Int]
    /// Registers: by key, what its own earlier answers have shown.
    var ownFloor: [Int]
    /// And what its open transaction writes.
    var queuedWrites: [(keys: [Int], number: Int)] = []
    var isBlocked = false
    /// It has asked for what gives it a link of its own.
    var hasState = false
    var isFinal = false
    /// It has queued these writes behind a MULTI; EXEC comes with what it does next.
    var queued: (tokens: [Int], keys: [Int])?

    /// What should have been answered long ago: not behind what blocks.
    var due: Asked? {
        for command in asked {
            switch command.kind {
            case .unanswered: continue
            case .pop: return nil
            default: return command
            }
        }
        return nil
    }

    init(_ index: Int, _ pod: Pod, _ habit: Habit, commands: Int, keys: Int) {
        self.index = index
        self.pod = pod
        self.habit = habit
        commandsLeft = commands
        ownRead = Array(repeating: 0, count: keys)
        ownWritten = ownRead
        ownServed = ownRead
        ownFloor = ownRead
    }

    /// Of this connection.
    var id = 0
    var name: String { "pod\(pod.index).c\(index)" }

    /// What RESET takes from a connection.
    func reset() {
        isWatching = false
        isInMulti = false
        watchedRead = nil
    }

    func forget() {
        reset()
        wire = 0
        reader = RESPReader()
        asked = []
        isConnected = false
        isBlocked = false
        hasState = false
        queued = nil
        queuedWrites = []
        /* Order is a connection's. */
        ownServed = ownServed.map { _ in 0 }
    }
}
