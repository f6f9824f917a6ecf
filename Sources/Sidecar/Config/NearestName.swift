/// The known name that a misspelt one most likely meant.
enum NearestName {
    /// By edits (insert, remove, change, swap neighbours); nil when nothing is near: within `editsMax`, or without one
    /// within a third of the name.
    static func of(_ name: String, among known: [String], editsMax: Int? = nil) -> String? {
        let wanted = Array(name.lowercased().utf8)
        guard wanted.count <= 64 else { return nil }
        var best: (name: String, edits: Int)?
        for candidate in known {
            let edits = distance(wanted, Array(candidate.utf8))
            if edits < best?.edits ?? Int.max { best = (candidate, edits) }
        }
        guard let best, best.edits <= editsMax ?? max(2, wanted.count / 3) else { return nil }
        return best.name
    }

    private static func distance(_ a: [UInt8], _ b: [UInt8]) -> Int {
        var beforeLast = [Int](repeating: 0, count: b.count + 1)
        var last = Array(0...b.count)
        for i in 0..<a.count {
            var row = [i + 1]
            for j in 0..<b.count {
                var edits = min(last[j + 1] + 1, row[j] + 1, last[j] + (a[i] == b[j] ? 0 : 1))
                if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] { edits = min(edits, beforeLast[j - 1] + 1) }
                row.append(edits)
            }
            (beforeLast, last) = (last, row)
        }
        return last[b.count]
    }
}
