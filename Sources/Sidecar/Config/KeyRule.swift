/// KeyRule — what holds for the keys whose names match a pattern: a table of `[[sidecar.rules]]`. The first that matches a
/// key holds; what it does not say is as for every other key.
struct KeyRule: Sendable, Equatable {
    /// As Redis' KEYS takes it.
    var pattern: String
    var mode: SidecarConfig.Mode?
    var ttlMs: UInt64?
    /// False: never kept, each read is the upstream's answer.
    var cache: Bool?
    /// How long past its ttl; 0: not at all.
    var staleMs: UInt64?

    static let countMax = 64
    static let patternBytesMax = 512
}

extension ConfigType where Value == [KeyRule] {
    private static let hour: UInt64 = 3_600_000
    private static let day: UInt64 = 24 * hour

    private static let ttl = ConfigType<UInt64>.duration(1...30 * day, example: "60s")
    private static let stale = ConfigType<UInt64>.duration(0...30 * day, example: "10m")
    private static let mode = ConfigType<SidecarConfig.Mode>.choice
    private static let cache = ConfigType<Bool>.boolean
    private static let members = ["pattern", "mode", "ttl", "cache", "stale"]

    static var rules: Self {
        Self(
            name: "tables",
            expected:
                "[[sidecar.rules]] with pattern and any of mode, ttl, cache and stale, e.g. pattern = \"user:*\" and ttl = \"60s\"",
            fromText: { text throws(Mistake) in
                guard let value = try valueOfTOML(text) else { throw Mistake("\"\(text)\" is no list of tables") }
                return try read(value, withLines: false)
            },
            fromTOML: { value throws(Mistake) in try read(value, withLines: true) },
            show: { "[" + $0.map(show).joined(separator: ", ") + "]" })
    }

    private static func read(_ value: TOMLValue, withLines: Bool) throws(Mistake) -> [KeyRule] {
        guard case .array(let values) = value else { throw Mistake("is \(value.kind)") }
        guard values.count <= KeyRule.countMax else {
            throw Mistake("there are \(values.count) rules; \(KeyRule.countMax) are the most")
        }
        var rules: [KeyRule] = []
        var mistakes: [Mistake] = []
        for (index, value) in values.enumerated() {
            if case .table(let entries) = value {
                rules.append(rule(index + 1, entries, withLines: withLines, &mistakes))
            } else {
                mistakes.append(Mistake("rule \(index + 1) is \(value.kind)"))
            }
        }
        guard var first = mistakes.first else { return rules }
        first.others = Array(mistakes.dropFirst())
        throw first
    }

    private static func rule(
        _ number: Int, _ entries: [TOMLDocument.Entry], withLines: Bool, _ mistakes: inout [Mistake]
    ) -> KeyRule {
        var rule = KeyRule(pattern: "")
        var isNamed = false
        for entry in entries {
            let name = TOMLParser.show(entry.path)
            isNamed = isNamed || name == "pattern"
            do throws(Mistake) {
                try read(name, entry.value, into: &rule)
            } catch {
                mistakes.append(
                    Mistake("rule \(number), \(name): \(error.what)", line: withLines ? entry.line : nil))
            }
        }
        if !isNamed {
            mistakes.append(Mistake("rule \(number) has no pattern", line: withLines ? entries.first?.line : nil))
        }
        return rule
    }

    private static func read(_ name: String, _ value: TOMLValue, into rule: inout KeyRule) throws(Mistake) {
        func member<Of>(_ type: ConfigType<Of>) throws(Mistake) -> Of {
            do throws(ConfigType<Of>.Mistake) {
                return try type.fromTOML(value)
            } catch {
                throw Mistake("\(error.what); it takes \(type.expected)")
            }
        }
        switch name {
        case "pattern":
            guard case .string(let pattern) = value else { throw Mistake("is \(value.kind); it takes a text") }
            if pattern.isEmpty { throw Mistake("is empty; it takes a pattern of keys, e.g. \"user:*\"") }
            if pattern.utf8.count > KeyRule.patternBytesMax {
                throw Mistake("is longer than \(KeyRule.patternBytesMax) bytes")
            }
            rule.pattern = pattern
        case "mode": rule.mode = try member(mode)
        case "ttl": rule.ttlMs = try member(ttl)
        case "cache": rule.cache = try member(cache)
        case "stale": rule.staleMs = try member(stale)
        default:
            let near = NearestName.of(name, among: members)
            throw Mistake(
                "is not known"
                    + (near.map { "; did you mean \"\($0)\"?" }
                        ?? "; it takes \(members.joined(separator: ", "))"))
        }
    }

    private static func show(_ rule: KeyRule) -> String {
        var members = ["pattern = \(TOMLText.quote(rule.pattern))"]
        if let given = rule.mode { members.append("mode = \(mode.show(given))") }
        if let given = rule.ttlMs { members.append("ttl = \(ttl.show(given))") }
        if let given = rule.cache { members.append("cache = \(cache.show(given))") }
        if let given = rule.staleMs { members.append("stale = \(stale.show(given))") }
        return "{" + members.joined(separator: ", ") + "}"
    }
}
