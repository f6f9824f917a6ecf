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

    /// Those that are not there already.
    mutating func appendNew(_ others: HotNames) {
        if others.isEmpty { return }
        let own = self
        let known = Set((0..<own.count).map { own[$0] })
        for place in 0..<others.count where !known.contains(others[place]) { append(others[place]) }
    }

    func from(_ place: Int) -> HotNames {
        var rest = HotNames()
        for place in place..<count { rest.append(self[place]) }
        return rest
    }

    /// The heat at which there are enough, counted from the hottest down: those of more are all taken, and of those that are
    /// just so hot as many as there is room for. 0 when there are never enough. `counts`: how many are of each heat.
    static func leastHeat(_ counts: [Int]) -> UInt8 {
        var count = 0
        for (heat, atHeat) in counts.enumerated().reversed() {
            count += atHeat
            if count >= countMax { return UInt8(clamping: heat) }
        }
        return 0
    }

    subscript(place: Int) -> ArraySlice<UInt8> { bytes[(place == 0 ? 0 : ends[place - 1])..<ends[place]] }

    mutating func removeAll() {
        bytes.removeAll(keepingCapacity: true)
        ends.removeAll(keepingCapacity: true)
    }
}
