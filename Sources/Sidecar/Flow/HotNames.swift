/// HotNames — names of keys, one behind the other with their ends; bounded, and cheap to keep.
struct HotNames: Sendable, Equatable {
    static let countMax = 10_000
    static let bytesMax = 1 << 20

    private(set) var bytes: [UInt8] = []
    private(set) var ends: [Int] = []

    var count: Int { ends.count }
    var isEmpty: Bool { ends.isEmpty }

    mutating func append(_ name: some Collection<UInt8>) {
        guard count < Self.countMax, bytes.count + name.count <= Self.bytesMax else { return }
        bytes.append(contentsOf: name)
        ends.append(bytes.count)
    }

    mutating func append(_ others: HotNames) {
        for place in 0..<others.count { append(others[place]) }
    }

    subscript(place: Int) -> ArraySlice<UInt8> { bytes[(place == 0 ? 0 : ends[place - 1])..<ends[place]] }

    mutating func removeAll() {
        bytes.removeAll(keepingCapacity: true)
        ends.removeAll(keepingCapacity: true)
    }
}
