import Glibc

/// A write that was acknowledged and, as far as its journal tells, not carried out.
struct JournaledWrite: Equatable {
    var place: UInt64
    /// Wall clock; nil: for ever.
    var expireAtMs: Int64?
    var key: [UInt8]
    var value: [UInt8]
}

/// JournalRemains — what the files of a journal tell: read once to find which writes are still to be carried out, then each
/// of these again by itself, so that memory is needed for their places only.
final class JournalRemains {
    struct File {
        var number: UInt64
        var file: JournalFile
        /// All places in it are below this.
        var next: UInt64
    }

    private struct Location {
        var file: Int
        var keyAt: Int
        var keyLength: Int
        var valueLength: Int
        var expireAtMs: Int64?
    }

    /// By number.
    private(set) var files: [File] = []
    private var live: [UInt64: Location] = [:]
    /// The first place that no record has.
    private(set) var next: UInt64 = 1
    /// Bytes of the last file that a crash has torn, cut off: nobody was told that they are there.
    private(set) var tornBytes = 0
    /// Files that are damaged, and so may lack what was acknowledged.
    private(set) var damaged: [String] = []
    /// Files without a byte.
    private(set) var empty: [String] = []

    var count: Int { live.count }

    /// Reads all files of a directory.
    init(directory: String) throws(JournalFailure) {
        let numbers = try Self.numbers(directory)
        for (index, number) in numbers.enumerated() {
            let file = try JournalFile(open: Journal.file(directory, number))
            try read(file, index, isLast: index == numbers.count - 1)
            files.append(File(number: number, file: file, next: next))
        }
    }

    /// Files that are open already.
    init(of files: [JournalFile]) throws(JournalFailure) {
        for (index, file) in files.enumerated() {
            try read(file, index, isLast: false)
            self.files.append(File(number: 0, file: file, next: next))
        }
    }

    private static func numbers(_ directory: String) throws(JournalFailure) -> [UInt64] {
        var numbers: [UInt64] = []
        for name in try names(in: directory) where name.hasSuffix(Journal.suffix) {
            let digits = name.dropLast(Journal.suffix.count)
            guard !digits.isEmpty, digits.allSatisfy({ $0.isASCII && $0.isNumber }) else { continue }
            let path = directory + "/" + name
            guard let number = UInt64(digits), number <= Journal.numberMax, Journal.file(directory, number) == path
            else {
                throw JournalFailure(
                    "journal: \(path) has a name that no journal gives; move it away, or give it the name back that it had, e.g. \(Journal.file(directory, 1))"
                )
            }
            numbers.append(number)
        }
        return numbers.sorted()
    }

    /// Of everything in a directory.
    static func names(in directory: String) throws(JournalFailure) -> [String] {
        guard let entries = opendir(directory) else { throw JournalFailure(doing: "reading \(directory)") }
        defer { closedir(entries) }
        var names: [String] = []
        while let entry = readdir(entries) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if !name.hasPrefix(".") { names.append(name) }
        }
        return names.sorted()
    }

    /* What is behind damage counts as well. A damaged frame may have said that writes are done, and these are sent again;
       that more of them are done is behind it. It may have had writes, which are lost; what was acknowledged after them is
       behind it, and what stands in front of it of the same keys is older. Places keep the order of what is found. */
    private func read(_ file: JournalFile, _ index: Int, isLast: Bool) throws(JournalFailure) {
        var reader = try JournalReader(file)
        var isDamaged = false
        while true {
            while let frame = try reader.next() { take(frame, index) }
            guard reader.offset < file.bytes, try reader.resume() else { break }
            isDamaged = true
        }
        if file.bytes == 0 { empty.append(file.path) }
        guard isDamaged || reader.offset < file.bytes else { return }
        if isLast, !isDamaged, try reader.isTorn() {
            tornBytes = file.bytes - reader.offset
            try file.cut(to: reader.offset)
        } else {
            damaged.append(file.path)
        }
    }

    private func take(_ frame: JournalReader.Frame, _ file: Int) {
        var at = 0
        while at < frame.records.count, let (record, end) = JournalRecord.read(frame.records, at: at) {
            take(record, of: frame, file)
            at = end
        }
    }

    private func take(_ record: JournalRecord, of frame: JournalReader.Frame, _ file: Int) {
        switch record {
        case .put(let place, let expireAtMs, let keyAt, let keyLength, let valueLength):
            next = max(next, place &+ 1)
            live[place] = Location(
                file: file, keyAt: frame.recordsAt + keyAt, keyLength: keyLength, valueLength: valueLength,
                expireAtMs: expireAtMs == JournalRecord.never
                    ? nil : Int64(bitPattern: expireAtMs).addingReportingOverflow(frame.clockMs).partialValue)
        case .done(let place):
            next = max(next, place &+ 1)
            live[place] = nil
        }
    }

    /// In the order in which they were acknowledged.
    func forEach(_ body: (JournaledWrite) throws(JournalFailure) -> Void) throws(JournalFailure) {
        for (place, location) in live.sorted(by: { $0.key < $1.key }) {
            let bytes = try files[location.file].file.read(
                at: location.keyAt, count: location.keyLength + location.valueLength)
            try body(
                JournaledWrite(
                    place: place, expireAtMs: location.expireAtMs, key: Array(bytes.prefix(location.keyLength)),
                    value: Array(bytes.dropFirst(location.keyLength))))
        }
    }
}
