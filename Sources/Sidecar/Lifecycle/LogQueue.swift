import Glibc
import Logging
import Synchronization

/// What one log call hands over; formatted by the writer, not by the caller.
struct LogRecord: Sendable {
    var level: Logger.Level
    var message: String
    var metadata: Logger.Metadata
    /// Wall clock.
    var seconds: Int
    var milliseconds: Int
}

/// A bounded queue from any thread to the one writer, without a lock: the loop must never wait for a writer of
/// SCHED_IDLE class that has been descheduled. (Vyukov's bounded queue: a cell's sequence says whose turn it is.)
/// A full queue drops and counts.
final class LogQueue: @unchecked Sendable {
    private struct Cell: ~Copyable {
        let sequence: Atomic<Int>
        var record: LogRecord?

        init(_ sequence: Int) {
            self.sequence = Atomic(sequence)
            record = nil
        }
    }

    private let cells: UnsafeMutablePointer<Cell>
    private let mask: Int
    private let producers = Atomic<Int>(0)
    /// The writer's own; read by `isEmpty` only.
    private let consumer = Atomic<Int>(0)
    private let droppedCount = Atomic<UInt64>(0)
    private let semaphore: UnsafeMutablePointer<sem_t>

    /// `capacity` is a power of two.
    init(capacity: Int) {
        precondition(capacity > 0 && capacity & (capacity - 1) == 0)
        mask = capacity - 1
        cells = .allocate(capacity: capacity)
        for index in 0..<capacity { (cells + index).initialize(to: Cell(index)) }
        semaphore = .allocate(capacity: 1)
        sem_init(semaphore, 0, 0)
    }

    deinit {
        for index in 0...mask { (cells + index).deinitialize(count: 1) }
        cells.deallocate()
        sem_destroy(semaphore)
        semaphore.deallocate()
    }

    /// Records that found no room since the start.
    var dropped: UInt64 { droppedCount.load(ordering: .relaxed) }

    var isEmpty: Bool { consumer.load(ordering: .acquiring) == producers.load(ordering: .acquiring) }

    /// Any thread; never waits.
    func put(_ record: LogRecord) {
        var position = producers.load(ordering: .relaxed)
        while true {
            let cell = cells + (position & mask)
            let lead = cell.pointee.sequence.load(ordering: .acquiring) - position
            if lead == 0 {
                let (won, seen) = producers.compareExchange(
                    expected: position, desired: position + 1, ordering: .relaxed)
                guard won else {
                    position = seen
                    continue
                }
                cell.pointee.record = record
                cell.pointee.sequence.store(position + 1, ordering: .releasing)
                sem_post(semaphore)
                return
            }
            if lead < 0 {
                droppedCount.wrappingAdd(1, ordering: .relaxed)
                return
            }
            position = producers.load(ordering: .relaxed)
        }
    }

    /// The writer only: waits for the next record.
    func take() -> LogRecord {
        let position = consumer.load(ordering: .relaxed)
        let cell = cells + (position & mask)
        while true {
            while sem_wait(semaphore) != 0 {}
            /* A caller that was interrupted between taking its place and filling it holds back those behind it. */
            while cell.pointee.sequence.load(ordering: .acquiring) != position + 1 { usleep(1_000) }
            guard let record = cell.pointee.record.take() else { continue }
            cell.pointee.sequence.store(position + mask + 1, ordering: .releasing)
            return record
        }
    }

    /// The writer only, after what was taken has been written.
    func written() { consumer.wrappingAdd(1, ordering: .releasing) }
}
