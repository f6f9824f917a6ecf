import CFastPath

/// Glob — whether a key's name matches a pattern, as KEYS and SCAN take it.
enum Glob {
    static func matches(_ pattern: [UInt8], _ name: Bytes) -> Bool {
        pattern.withUnsafeBufferPointer { fp_glob($0.baseAddress, $0.count, name.baseAddress, name.count) }
    }
}
