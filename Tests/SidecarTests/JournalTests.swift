import Glibc
import Testing

@testable import Sidecar

/// A journal of its own in a temporary directory, on a clock that is set.
private final class Directory {
    let path: String

    init() {
        var template = Array("/tmp/ferrite-journal-XXXXXX".utf8CString)
        path = template.withUnsafeMutableBufferPointer { buffer in
            guard let base = buffer.baseAddress, let made = mkdtemp(base) else { return "" }
            return String(cString: made)
        }
    }

    deinit {
        for name in names { unlink(path + "/" + name) }
        rmdir(path)
    }

    var names: [String] { (try? JournalRemains.names(in: path)) ?? [] }

    /// Our descriptors of the directory itself.
    var descriptors: [Int32] {
        (0..<1_024).filter { fd in
            let target = [UInt8](unsafeUninitializedCapacity: 256) { buffer, count in
                count = buffer.baseAddress.map { max(0, readlink("/proc/self/fd/\(fd)", $0, 256)) } ?? 0
            }
            return target == Array(path.utf8)
        }
    }

    func open(
        fsync: SidecarConfig.JournalFsync = .no, bytesMax: Int = 1 << 30, fileBytesMax: Int = 1 << 20,
        clockMs: Int64 = 1_000_000
    ) throws -> Journal {
        try Journal(path, fsync: fsync, bytesMax: bytesMax, fileBytesMax: fileBytesMax, clockMs: { clockMs })
    }

    /// The open directory cannot be synced meanwhile: a pipe stands in its place.
    func withoutSync(_ body: () throws -> Void) throws {
        let whole = descriptors
        try #require(whole.count == 1)
        let saved = dup(whole[0])
        var ends: [Int32] = [0, 0]
        try #require(pipe(&ends) == 0)
        dup2(ends[0], whole[0])
        defer {
            dup2(saved, whole[0])
            for end in ends + [saved] { close(end) }
        }
        try body()
    }

    /// Changes bytes of a file.
    func edit(_ name: String, _ body: (inout [UInt8]) -> Void) throws {
        let fd = Glibc.open(path + "/" + name, O_RDWR)
        defer { close(fd) }
        var bytes = [UInt8](repeating: 0, count: 1 << 22)
        let count = pread(fd, &bytes, bytes.count, 0)
        bytes.removeLast(bytes.count - count)
        body(&bytes)
        ftruncate(fd, 0)
        #expect(pwrite(fd, bytes, bytes.count, 0) == bytes.count)
    }
}

extension Journal {
    fileprivate func put(_ place: UInt64, _ key: String, _ value: String, oldest: UInt64 = 1) throws {
        let write = JournaledWrite(place: place, expireAtMs: nil, key: Array(key.utf8), value: Array(value.utf8))
        try append(JournalRecord.put(write, clockMs: 0), oldest: oldest, next: place + 1)
    }

    fileprivate func done(_ place: UInt64, oldest: UInt64, next: UInt64) throws {
        try append([UInt8(ascii: "D")] + JournalFrame.bytes(place), oldest: oldest, next: next)
    }

    fileprivate func append(_ records: [UInt8], oldest: UInt64, next: UInt64) throws {
        var failure: JournalFailure?
        records.withUnsafeBytes { bytes in
            do throws(JournalFailure) { try append(bytes, oldest: oldest, next: next) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    /// "1 a x": place, key and value.
    fileprivate func live() throws -> [String] {
        var live: [String] = []
        try remains?.forEach {
            live.append(
                "\($0.place) \(String(decoding: $0.key, as: UTF8.self)) \(String(decoding: $0.value, as: UTF8.self))")
        }
        return live
    }
}

@Suite("Journal")
struct JournalTests {
    @Test("What was not carried out is found by the next process, in order, the last of each place")
    func restores() throws {
        let directory = Directory()
        do {
            let journal = try directory.open()
            #expect(try journal.live() == [])
            try journal.put(1, "a", "x")
            try journal.put(2, "b", "y")
            try journal.put(1, "a", "z")
            try journal.put(3, "c", "w")
            try journal.done(2, oldest: 1, next: 4)
        }
        do {
            let journal = try directory.open()
            #expect(try journal.live() == ["1 a z", "3 c w"])
            #expect(journal.remains?.next == 4 && journal.remains?.tornBytes == 0)
            try journal.done(1, oldest: 3, next: 4)
            try journal.put(4, "d", "v", oldest: 3)
        }
        /* And by the one after that, which finds what this one has done. */
        #expect(try directory.open().live() == ["3 c w", "4 d v"])
    }

    @Test("An expiry is told on the wall clock, whatever the engine's clock counts from")
    func expiry() throws {
        let directory = Directory()
        do {
            let journal = try directory.open(clockMs: 1_000_000)
            let write = JournaledWrite(place: 1, expireAtMs: 1_005_000, key: [97], value: [98])
            try journal.append(JournalRecord.put(write, clockMs: 1_000_000), oldest: 1, next: 2)
        }
        let journal = try directory.open(clockMs: 1_000_900)
        let orders = RecordedOrders()
        #expect(try journal.restore(to: orders, 1_000_900) == [.journalRestored(writes: 1)])
        #expect(orders.take() == ["journal on from 2", "restore 1: a 1 bytes until 4100"])
        #expect(journal.status.restored == 1 && journal.status.isOn)
    }

    @Test("A torn end is cut, at whatever byte, and what is before it is found")
    func torn() throws {
        for length in stride(from: 1, through: 60, by: 1) {
            let directory = Directory()
            do {
                let journal = try directory.open()
                try journal.put(1, "a", "x")
                try journal.put(2, "b", "some value that is longer")
            }
            var cut = 0
            try directory.edit("0000000001.journal") { bytes in
                cut = min(length, 16 + 25 + 26)
                bytes.removeLast(cut)
            }
            do {
                let journal = try directory.open()
                #expect(try journal.live() == ["1 a x"])
                #expect(journal.remains?.tornBytes == 67 - cut && journal.remains?.damaged == [])
                try journal.put(5, "c", "y")
            }
            #expect(try directory.open().live() == ["1 a x", "5 c y"])
        }
    }

    /// Of 100 writes in a frame each, of which the last is done.
    private func hundred() throws -> Directory {
        let directory = Directory()
        let journal = try directory.open()
        for place in 1...100 as ClosedRange<UInt64> { try journal.put(place, "k\(place)", "value") }
        try journal.done(100, oldest: 1, next: 101)
        return directory
    }

    @Test("Damage in the last file is no torn end: what is behind it is found, and a copy is kept")
    func damagedLast() throws {
        let file = "0000000001.journal"
        let edits: [(lost: UInt64, edit: (inout [UInt8]) -> Void)] = [
            (50, { $0[16 + 9 * 48 + 40 * 49 + 30] ^= 1 }), (1, { $0[16] ^= 1 }), (1, { $0[17] ^= 1 }),
            (1, { $0[19] ^= 0x40 }), (1, { $0[16] = 30 }),
            (1, { $0.removeSubrange(20..<27) }),
            (1, { $0.replaceSubrange(16..<60, with: Array(repeating: 0, count: 44)) }),
            (1, { $0.replaceSubrange(16..<60, with: Array(repeating: UInt8(ascii: "P"), count: 44)) }),
        ]
        for (index, (lost, edit)) in edits.enumerated() {
            let directory = try hundred()
            var bytes: [UInt8] = []
            try directory.edit(file) {
                edit(&$0)
                bytes = $0
            }
            for start in 1...2 {
                let journal = try directory.open()
                let live = try journal.live()
                #expect(
                    live.count == (start == 1 ? 98 : 99) && !live.contains { $0.hasPrefix("\(lost) ") }, "edit \(index)"
                )
                #expect(journal.remains?.tornBytes == 0)
                let kept = "a copy is kept as \(directory.path)/0000000001.damaged"
                let notices = try journal.restore(to: RecordedOrders(), 0)
                #expect(notices.first == .journalDamaged(path: directory.path + "/" + file, kept: kept))
                /* The next process finds it among earlier ones, and no further copy is made. */
                try journal.put(200, "k", "v")
                #expect(directory.names.filter { $0.contains("damaged") } == ["0000000001.damaged"])
                try directory.edit("0000000001.damaged") { #expect($0 == bytes) }
                if start == 1 { continue }
                for place in 1...200 as ClosedRange<UInt64> { try journal.done(place, oldest: 201, next: 201) }
                #expect(!directory.names.contains(file) && directory.names.contains("0000000001.damaged"))
            }
        }
    }

    @Test(
        "A last frame that is whole and wrong is damage; one that is not whole is torn, and so is what holds a journal")
    func tornOrDamaged() throws {
        let directory = try hundred()
        try directory.edit("0000000001.journal") { $0[$0.count - 1] ^= 1 }
        do {
            let journal = try directory.open()
            #expect(journal.remains?.tornBytes == 0 && journal.remains?.damaged.count == 1)
            #expect(try journal.live().count == 100)
        }
        /* Somebody has written a copy of a journal as a value: what it holds is his and not ours. */
        let other = Directory()
        try directory.edit("0000000001.journal") { copy in
            let journal = try? other.open()
            try? journal?.put(1, "a", "x")
            let write = JournaledWrite(place: 2, expireAtMs: nil, key: [98], value: copy)
            try? journal?.append(JournalRecord.put(write, clockMs: 0), oldest: 1, next: 3)
        }
        try other.edit("0000000001.journal") { $0.removeLast(10) }
        let journal = try other.open()
        #expect(try journal.live() == ["1 a x"])
        #expect(journal.remains?.damaged == [] && (journal.remains?.tornBytes ?? 0) > 1_000)
    }

    @Test("An empty file is told of: a crash may have left it so, or it was not empty")
    func emptyFile() throws {
        let directory = try hundred()
        try directory.edit("0000000001.journal") { $0 = [] }
        let journal = try directory.open()
        #expect(
            try journal.restore(to: RecordedOrders(), 0) == [
                .journalEmpty(path: directory.path + "/0000000001.journal")
            ])
    }

    @Test("Damage that has come since is not copied: the journal fails, and is begun anew when all is carried out")
    func damagedMeanwhile() throws {
        let directory = Directory()
        let journal = try directory.open(bytesMax: 500, fileBytesMax: 200)
        for place in 1...8 as ClosedRange<UInt64> { try journal.put(place, "k\(place)", "value") }
        try directory.edit("0000000001.journal") { $0[60] ^= 1 }
        #expect {
            for place in 9...20 as ClosedRange<UInt64> { try journal.put(place, "k\(place)", "value") }
        } throws: { error in
            "\(error)" == "journal: \(directory.path)/0000000001.journal has been damaged"
        }
        try journal.clear()
        #expect(directory.names == [])
    }

    @Test("A copy of another damaged file that had its number is not taken for its own")
    func damagedTwice() throws {
        let directory = try hundred()
        try directory.edit("0000000001.journal") { $0[60] ^= 1 }
        close(open(directory.path + "/0000000001.damaged", O_CREAT | O_WRONLY, 0o600))
        let notices = try directory.open().restore(to: RecordedOrders(), 0)
        let path = directory.path + "/0000000001"
        #expect(
            notices.first
                == .journalDamaged(path: path + ".journal", kept: "a copy is kept as \(path).damaged.2"))
    }

    @Test("A byte that has changed is noticed; a damaged file is kept under another name")
    func damaged() throws {
        let directory = Directory()
        do {
            let journal = try directory.open(fileBytesMax: 40)
            try journal.put(1, "a", "x")
            try journal.put(2, "b", "y")
        }
        #expect(directory.names == ["0000000001.journal", "0000000002.journal"])
        try directory.edit("0000000001.journal") { $0[$0.count - 1] ^= 1 }
        let journal = try directory.open()
        #expect(try journal.live() == ["2 b y"])
        let kept = directory.path + "/0000000001.damaged"
        let orders = RecordedOrders()
        #expect(
            try journal.restore(to: orders, 0) == [
                .journalDamaged(path: directory.path + "/0000000001.journal", kept: "a copy is kept as \(kept)"),
                .journalRestored(writes: 1),
            ])
        #expect(directory.names.contains("0000000001.damaged"))
    }

    @Test("A file of another version is left as it is, and the start refused; one whose head is torn holds nothing")
    func foreign() throws {
        let directory = Directory()
        do { try directory.open().put(1, "a", "x") }
        try directory.edit("0000000001.journal") { $0[8] = 2 }
        #expect(throws: JournalFailure.self) { try directory.open() }
        try directory.edit("0000000001.journal") { $0[8] = 1 }
        #expect(try directory.open().live() == ["1 a x"])
        try directory.edit("0000000001.journal") { $0.removeLast($0.count - 10) }
        let journal = try directory.open()
        #expect(try journal.live() == [] && journal.remains?.tornBytes == 10)
    }

    @Test("A file whose name no journal gives is named, and the start refused; what is no number is none of it")
    func names() throws {
        let directory = Directory()
        do { try directory.open().put(1, "a", "x") }
        let file = directory.path + "/0000000001.journal"
        for name in ["18446744073709551615", "9223372036854775808", "99999999999999999999", "1", "00000000001"] {
            let other = directory.path + "/\(name).journal"
            link(file, other)
            #expect {
                try directory.open()
            } throws: { error in
                "\(error)".hasPrefix("journal: \(other) has a name that no journal gives; move it away")
            }
            unlink(other)
        }
        for name in ["copy", "+1", "-1", ""] { link(file, directory.path + "/\(name).journal") }
        defer { unlink(directory.path + "/.journal") }
        let journal = try directory.open()
        #expect(try journal.live() == ["1 a x"])
        try journal.put(2, "b", "y")
        #expect(directory.names.contains("0000000002.journal"))
    }

    @Test("Places go on behind those of which only the end is told any more")
    func placesGoOn() throws {
        let directory = Directory()
        do { try directory.open().done(41, oldest: 42, next: 42) }
        let journal = try directory.open()
        #expect(try journal.live() == [] && journal.remains?.next == 42)
    }

    @Test("Files go when all that they tell of is done, the oldest first")
    func release() throws {
        let directory = Directory()
        let journal = try directory.open(fileBytesMax: 100)
        for place in 1...10 as ClosedRange<UInt64> { try journal.put(place, "k\(place)", "some value") }
        #expect(directory.names.count == 5)
        for place in 1...10 as ClosedRange<UInt64> where place != 1 { try journal.done(place, oldest: 1, next: 11) }
        #expect(directory.names.first == "0000000001.journal")
        try journal.done(1, oldest: 11, next: 11)
        try journal.put(11, "k", "v", oldest: 11)
        #expect(directory.names.count == 1 && journal.status.bytes < 200)
        let bytes = journal.status.bytes
        try journal.clear()
        #expect(directory.names == [] && bytes > 0 && journal.status.bytes == 0)
        try journal.put(12, "k", "v", oldest: 12)
        #expect(directory.names.count == 1)
    }

    @Test(
        "A file that cannot be removed is emptied; one that cannot be emptied either stays, until it can, and goes first"
    )
    func stuck() throws {
        let directory = Directory()
        let name = directory.path + "/0000000001.journal"
        let other = directory.path + "/other"
        let journal = try directory.open()
        try journal.put(1, "a", "x")
        /* Its name is that of something which cannot be unlinked. */
        rename(name, other)
        mkdir(name, 0o700)
        defer { rmdir(name) }
        #expect(journal.perform(.clear).failure == nil && journal.status.bytes == 0)
        try directory.edit("other") { #expect($0.isEmpty) }
        try journal.put(2, "b", "y", oldest: 2)
        rename(directory.path + "/0000000002.journal", other)
        mkdir(directory.path + "/0000000002.journal", 0o700)
        let kept = directory.path + "/kept"
        link(other, kept)
        let bytes = journal.status.bytes
        for work in [JournalWork.clear, .reopen, .clear] {
            #expect(
                journal.perform(work).failure?.description
                    == "journal: removing \(directory.path)/0000000002.journal: Is a directory")
        }
        #expect(journal.status.bytes == bytes && directory.names.count == 4)
        try directory.edit("kept") { #expect($0.count == bytes) }
        rmdir(directory.path + "/0000000002.journal")
        #expect(journal.perform(.reopen).failure == nil)
        #expect(directory.names == ["0000000001.journal", "0000000003.journal", "kept", "other"])
    }

    @Test(
        "A new file that cannot be brought to the disk does not stay, however often that is tried, and each is counted")
    func noSync() throws {
        let directory = Directory()
        let journal = try directory.open(fsync: .always, bytesMax: 300, fileBytesMax: 100)
        for place in 1...5 as ClosedRange<UInt64> { try journal.put(place, "k\(place)", "some value") }
        let names = directory.names
        let bytes = journal.status.bytes
        try directory.withoutSync {
            /* Also when it is a copy of the others, which then stay. */
            for place in 6...7 as ClosedRange<UInt64> {
                #expect(throws: JournalFailure.self) {
                    while true { try journal.put(place, "k\(place)", "some value") }
                }
            }
            #expect(Set(directory.names).isSubset(of: names) && journal.status.bytes <= bytes + 100)
            _ = journal.perform(.clear)
            let failures = journal.status.failures
            for count in 1...5 {
                #expect(
                    journal.perform(.reopen).failure?.description
                        == "journal: fsync of \(directory.path): Invalid argument"
                )
                #expect(directory.names == [] && journal.status.bytes == 0)
                #expect(journal.status.failures == failures + UInt64(count))
            }
        }
        #expect(journal.perform(.reopen).failure == nil && directory.names.count == 1)
    }

    @Test(
        "That files have gone is on the disk before anybody hears of it, but with no; so is it that there is a new one")
    func namesOnDisk() throws {
        for fsync in SidecarConfig.JournalFsync.allCases {
            let directory = Directory()
            let journal = try directory.open(fsync: fsync)
            try journal.put(1, "a", "x")
            try directory.withoutSync {
                for _ in 1...2 { #expect((journal.perform(.clear).failure == nil) == (fsync == .no)) }
                #expect(directory.names == [])
                let put = Result { try journal.put(2, "b", "y", oldest: 2) }
                #expect(((try? put.get()) != nil) == (fsync == .no))
            }
            #expect(journal.perform(.clear).failure == nil)
            #expect(journal.perform(.reopen).failure == nil)
        }
    }

    @Test("Too much is copied: what is still to be carried out, once")
    func copies() throws {
        let directory = Directory()
        do {
            let journal = try directory.open(bytesMax: 2_000, fileBytesMax: 500)
            for round in 0..<200 as Range<UInt64> {
                try journal.put(1 + round % 3, "k\(round % 3)", "value \(round)")
                /* What it may have, and a file with a batch on top. */
                #expect(journal.status.bytes <= 2_000 + 500 + 60)
            }
            try journal.done(2, oldest: 1, next: 4)
            #expect(journal.status.bytes < 2_700)
            #expect(directory.names.count < 6)
        }
        #expect(try directory.open().live() == ["1 k0 value 198", "3 k2 value 197"])
    }

    @Test("Always: a batch is on the disk before it counts as written; otherwise at each MiB")
    func syncs() throws {
        let directory = Directory()
        let always = try directory.open(fsync: .always)
        for place in 1...5 as ClosedRange<UInt64> { try always.put(place, "k", "v") }
        /* And one for the file itself. */
        #expect(always.status.syncs == 6 && always.status.batches == 5)
        let other = Directory()
        let rarely = try other.open(fsync: .everysec, fileBytesMax: 1 << 24)
        for place in 1...5 as ClosedRange<UInt64> {
            try rarely.put(place, "k", String(repeating: "v", count: 400_000))
        }
        #expect(rarely.status.syncs == 2)
        #expect(rarely.perform(.sync).failure == nil && rarely.status.syncs == 3)
        #expect(rarely.perform(.sync).failure == nil && rarely.status.syncs == 3)
    }

    @Test("A directory belongs to one process at a time, and one that cannot be is named")
    func locked() throws {
        let directory = Directory()
        let journal = try directory.open()
        #expect(throws: JournalFailure.self) { try directory.open() }
        withExtendedLifetime(journal) {}
        #expect {
            try Journal("/nowhere/at/all", fsync: .no, bytesMax: 1, clockMs: { 0 })
        } throws: { error in
            "\(error)" == "journal: making the directory /nowhere/at/all: No such file or directory"
        }
    }

    @Test("A child that was just being started does not keep the lock")
    func lockOfAChild() throws {
        let directory = Directory()
        var copies: [Int32] = []
        do {
            let journal = try directory.open()
            copies = directory.descriptors.map { dup($0) }
            withExtendedLifetime(journal) {}
        }
        defer { for copy in copies { close(copy) } }
        #expect(copies.count == 1)
        #expect(throws: Never.self) { try directory.open() }
    }

    @Test("What does not fit in write_behind.memory is not dropped: the start is refused")
    func tooMuch() throws {
        let directory = Directory()
        do {
            let journal = try directory.open()
            try journal.put(1, "a", "x")
            try journal.put(2, "b", "y")
        }
        let journal = try directory.open()
        let orders = RecordedOrders()
        orders.restorable = 1
        #expect(throws: JournalFailure.self) { try journal.restore(to: orders, 0) }
        #expect(directory.names == ["0000000001.journal"])
    }
}

@Suite("Journaling")
struct JournalingTests {
    private func world(_ fsync: SidecarConfig.JournalFsync = .always) -> FlowWorld {
        FlowWorld.connected(
            FlowWorld.policy {
                $0.mode = .writeBehind
                $0.journal = "/a/journal"
                $0.journalFsync = fsync
            })
    }

    private func did(_ world: FlowWorld, _ work: JournalWork?, _ failure: String? = nil) -> [String] {
        guard let work else { return ["nothing to do"] }
        return world.journalDid(
            JournalOutcome(work: work, failure: failure.map { JournalFailure($0) }, status: JournalStatus()))
    }

    private func kind(_ work: JournalWork?) -> String {
        switch work {
        case .write(_, let oldest, _): "write \(oldest)"
        case .sync: "sync"
        case .clear: "clear"
        case .reopen: "reopen"
        case nil: "nothing"
        }
    }

    @Test("A batch at a time is written, and what waits for it goes on")
    func writes() {
        let world = world()
        #expect(kind(world.journalWork()) == "nothing")
        world.orders.records = [1, 2]
        let first = world.journalWork()
        #expect(kind(first) == "write 1")
        #expect(kind(world.journalWork()) == "nothing")
        #expect(did(world, first) == ["journal written"])
        #expect(kind(world.journalWork()) == "write 2")
    }

    @Test("Every second what was written is brought to the disk, when something was")
    func eachSecond() {
        let world = world(.everysec)
        world.orders.records = [1]
        _ = did(world, world.journalWork())
        #expect(kind(world.journalWork()) == "nothing")
        world.sleep(ms: 300)
        _ = world.turn()
        #expect(world.deadlineMs <= world.nowMs + 700)
        world.sleep(ms: 700)
        _ = world.turn()
        let sync = world.journalWork()
        #expect(kind(sync) == "sync")
        /* As the help says: what comes meanwhile is acknowledged behind it. */
        world.orders.records = [2]
        #expect(kind(world.journalWork()) == "nothing")
        #expect(did(world, sync) == [])
        let write = world.journalWork()
        #expect(kind(write) == "write 2" && did(world, write) == ["journal written"])
        world.sleep(ms: 1_000)
        _ = world.turn()
        #expect(did(world, world.journalWork()) == [])
        world.sleep(ms: 1_000)
        _ = world.turn()
        #expect(kind(world.journalWork()) == "nothing")
    }

    @Test("When it cannot be written all is carried out, its files go, and who waits hears it; then it is tried again")
    func diskFull() {
        let world = world()
        world.orders.queuedKeys = ["a"]
        world.orders.records = [1]
        let write = world.journalWork()
        #expect(did(world, write, "journal: no space") == ["journal off", "write 1: a"])
        #expect(world.flow.notices.last == .journalFailed(reason: "journal: no space"))
        #expect(kind(world.journalWork()) == "nothing")
        #expect(world.turn(.reply(1, "+OK")) == ["a is confirmed"])
        let clear = world.journalWork()
        #expect(kind(clear) == "clear")
        #expect(did(world, clear) == ["journal gone"])
        #expect(kind(world.journalWork()) == "nothing")
        for failure in ["journal: no space", nil] {
            world.sleep(ms: 1_000)
            _ = world.turn()
            let reopen = world.journalWork()
            #expect(kind(reopen) == "reopen")
            #expect(did(world, reopen, failure) == (failure == nil ? ["journal on"] : []))
        }
        #expect(world.flow.notices.last == .journalIsBack)
        world.orders.records = [2]
        #expect(kind(world.journalWork()) == "write 2")
    }

    @Test("Files that can be neither removed nor emptied hold nobody up for ever, and the log says what that means")
    func stuck() {
        let world = world()
        world.orders.records = [1]
        #expect(did(world, world.journalWork(), "journal: read-only") == ["journal off"])
        var heard: [String] = []
        var tries = 0
        while heard.isEmpty, tries < 20 {
            tries += 1
            let clear = world.journalWork()
            #expect(kind(clear) == "clear")
            heard = did(world, clear, "journal: stays")
            #expect(kind(world.journalWork()) == "nothing")
            world.sleep(ms: 1_000)
            _ = world.turn()
        }
        #expect(heard == ["journal gone"] && tries == 6)
        let told: [FlowNotice] = [
            .journalFailed(reason: "journal: read-only"), .journalStuck(reason: "journal: stays"),
            .journalLeft(reason: "journal: stays"),
        ]
        #expect(world.flow.notices.filter { told.contains($0) } == told)
        let reopen = world.journalWork()
        #expect(kind(reopen) == "reopen")
        #expect(did(world, reopen) == ["journal on"])
    }

    @Test("When it cannot be written and the upstream is away, who waits is closed")
    func forsaken() {
        let world = world()
        world.orders.queuedKeys = ["a"]
        world.orders.records = [1]
        _ = did(world, world.journalWork(), "journal: no space")
        _ = world.turn(.down(1, 104))
        world.sleep(ms: 60)
        _ = world.turn()
        while world.isConnecting { _ = world.pass(ms: 60) }
        _ = world.orders.take()
        #expect(kind(world.journalWork()) == "nothing")
        #expect(world.orders.take() == ["forsake"])
    }

    @Test("A record that found no memory ends it, as a failed write does")
    func short() {
        let world = world()
        world.orders.journalIsShort = true
        #expect(kind(world.journalWork()) == "clear")
        #expect(world.orders.take() == ["journal off"])
    }
}
