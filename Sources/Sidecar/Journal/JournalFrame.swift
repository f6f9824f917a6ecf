/// JournalFrame — the form of a journal's file: a head, then frames, each a batch of the fast path's records as it was
/// acknowledged (serve/journal.h tells the form of a record). Numbers stand with the lowest byte first.
///
///     file   "FERRITEJ" version:4 zero:4
///     frame  length:4 crc:4 clock:8 records           length: of clock and records; crc: of the same
///
/// A frame that is torn was not acknowledged: it is cut (JournalReader tells torn from damaged). Places go on counting from process to process; times are of the
/// process that wrote them, and the clock turns them into wall-clock time.
enum JournalFrame {
    static let magic = Array("FERRITEJ".utf8)
    static let version: UInt32 = 1
    static let fileHead = magic + bytes(version) + [0, 0, 0, 0]
    static let headBytes = 16

    /// `clockMs`: what is added to a time of the engine for one of the wall clock.
    static func head(of records: UnsafeRawBufferPointer, clockMs: Int64) -> [UInt8] {
        let clock = bytes(UInt64(bitPattern: clockMs))
        let crc = clock.withUnsafeBytes { CRC32C.of(records, after: CRC32C.of($0)) }
        return bytes(UInt32(truncatingIfNeeded: records.count + 8)) + bytes(crc) + clock
    }

    /// Length of clock and records, and their crc.
    static func readHead(_ head: [UInt8]) -> (length: Int, crc: UInt32) {
        (Int(number(head, at: 0, 4)), UInt32(truncatingIfNeeded: number(head, at: 4, 4)))
    }

    static func bytes<Number: FixedWidthInteger>(_ number: Number) -> [UInt8] {
        withUnsafeBytes(of: number.littleEndian) { Array($0) }
    }

    /// Of `count` bytes at most 8.
    static func number(_ bytes: [UInt8], at start: Int, _ count: Int) -> UInt64 {
        var number: UInt64 = 0
        for place in (start..<start + count).reversed() { number = number << 8 | UInt64(bytes[place]) }
        return number
    }
}

/// A record of a frame.
enum JournalRecord: Equatable {
    /// `keyAt`: where in the frame's bytes the key begins, behind which the value stands.
    case put(place: UInt64, expireAtMs: UInt64, keyAt: Int, keyLength: Int, valueLength: Int)
    case done(place: UInt64)

    static let never = UInt64.max

    /// The record of a write, in a frame of this clock.
    static func put(_ write: JournaledWrite, clockMs: Int64) -> [UInt8] {
        let expireAtMs = write.expireAtMs.map { UInt64(clamping: $0 - clockMs) } ?? never
        return [UInt8(ascii: "P")] + JournalFrame.bytes(write.place) + JournalFrame.bytes(expireAtMs)
            + JournalFrame.bytes(UInt32(truncatingIfNeeded: write.key.count))
            + JournalFrame.bytes(UInt32(truncatingIfNeeded: write.value.count)) + write.key + write.value
    }

    static let headBytesMax = 25

    /// By its first bytes, of which there are `headBytesMax` but at a file's end; nil: it is none, or they are too few.
    static func length(of head: [UInt8]) -> Int? {
        switch head.first {
        case UInt8(ascii: "P"):
            guard head.count >= 25 else { return nil }
            return 25 + Int(JournalFrame.number(head, at: 17, 4)) + Int(JournalFrame.number(head, at: 21, 4))
        case UInt8(ascii: "D"): return head.count >= 9 ? 9 : nil
        default: return nil
        }
    }

    /// The one at `at`, and where the next begins; nil when it is none, which a frame with the right crc never has.
    static func read(_ bytes: [UInt8], at start: Int) -> (record: JournalRecord, next: Int)? {
        let left = bytes.count - start
        switch bytes[start] {
        case UInt8(ascii: "P"):
            guard left >= 25 else { return nil }
            let keyLength = Int(JournalFrame.number(bytes, at: start + 17, 4))
            let valueLength = Int(JournalFrame.number(bytes, at: start + 21, 4))
            guard keyLength + valueLength <= left - 25 else { return nil }
            let record = JournalRecord.put(
                place: JournalFrame.number(bytes, at: start + 1, 8),
                expireAtMs: JournalFrame.number(bytes, at: start + 9, 8), keyAt: start + 25, keyLength: keyLength,
                valueLength: valueLength)
            return (record, start + 25 + keyLength + valueLength)
        case UInt8(ascii: "D"):
            guard left >= 9 else { return nil }
            return (.done(place: JournalFrame.number(bytes, at: start + 1, 8)), start + 9)
        default: return nil
        }
    }
}

/// The Castagnoli polynomial, reflected, a byte at a time (RFC 3720, appendix B.4).
enum CRC32C {
    private static let table: [UInt32] = (0..<256).map { byte in
        (0..<8).reduce(UInt32(byte)) { crc, _ in crc & 1 == 1 ? crc >> 1 ^ 0x82F6_3B78 : crc >> 1 }
    }

    /// `after`: of the bytes before.
    static func of(_ bytes: UnsafeRawBufferPointer, after crc: UInt32 = 0) -> UInt32 {
        table.withUnsafeBufferPointer { table in
            ~bytes.reduce(~crc) { crc, byte in table[Int((crc ^ UInt32(byte)) & 0xFF)] ^ crc >> 8 }
        }
    }
}
