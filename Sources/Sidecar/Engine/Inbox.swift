import Synchronization

/// Inbox — hands closures from one thread to another without a lock: pushing and taking never wait, so the loop may do
/// both whatever class the other thread is of. A stack of boxes, turned round when it is taken.
final class Inbox<Argument>: Sendable {
    typealias Job = @Sendable (Argument) -> Void

    private final class Box {
        let job: Job
        var next: UInt

        init(_ job: @escaping Job) {
            self.job = job
            next = 0
        }
    }

    /* Address of the newest box; 0: empty. */
    private let newest = Atomic<UInt>(0)

    init() {}

    deinit { takeAll { _ in } }

    var isEmpty: Bool { newest.load(ordering: .acquiring) == 0 }

    /// Any thread. True when the inbox was empty: its owner is to be woken.
    func push(_ job: @escaping Job) -> Bool {
        let box = Box(job)
        let address = UInt(bitPattern: Unmanaged.passRetained(box).toOpaque())
        var head = newest.load(ordering: .relaxed)
        while true {
            box.next = head
            let (exchanged, original) = newest.weakCompareExchange(
                expected: head, desired: address, successOrdering: .releasing, failureOrdering: .relaxed)
            if exchanged { return head == 0 }
            head = original
        }
    }

    /// The owner's thread only: all jobs so far, oldest first.
    func takeAll(_ body: (Job) -> Void) {
        var address = newest.exchange(0, ordering: .acquiring)
        var boxes: [Box] = []
        while let pointer = UnsafeRawPointer(bitPattern: address) {
            let box = Unmanaged<Box>.fromOpaque(pointer).takeRetainedValue()
            address = box.next
            boxes.append(box)
        }
        for box in boxes.reversed() { body(box.job) }
    }
}
