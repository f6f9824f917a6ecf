/// What is wrong with one setting: where it stands, which key, what was found, what was expected. All problems of a
/// start are gathered and shown together.
struct ConfigProblem: Error, Sendable, Equatable, CustomStringConvertible {
    /// Where the value came from; nil for what nobody gave.
    var source: ConfigSource?
    /// Empty for what belongs to no key (a syntax error).
    var key: String
    /// A clause: `"128" needs a unit`.
    var what: String
    /// A clause with its example: `a size, e.g. "128mb"`. Empty when `what` says it all.
    var expected: String

    var description: String {
        var text = ""
        if let source { text += "\(source): " }
        if !key.isEmpty { text += "key \"\(key)\": " }
        text += what
        if !expected.isEmpty { text += "; expected \(expected)" }
        return text
    }
}

/// Every problem found, as one error.
struct ConfigError: Error, Sendable, Equatable, CustomStringConvertible {
    var problems: [ConfigProblem]
    /// Nothing else is wrong than that no upstream was named: a first start, not a mistake.
    var isOnlyMissingUpstream = false

    var description: String { problems.map(\.description).joined(separator: "\n") }
}
