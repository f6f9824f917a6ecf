/// A TOML text as a flat list of assignments, each with its full path and its line.
///
/// Our own reader instead of a library for two reasons: every complaint about a key names its line, which the library
/// at hand does not know, and that library brings all of Foundation (7 MB resident, measured) into a daemon whose
/// memory is its promise. It reads TOML 1.0, but for tables inside of a list's tables. A
/// syntax error ends its line only, so that all of them are reported at once.
struct TOMLDocument: Sendable {
    struct Entry: Sendable, Equatable {
        var path: [String]
        var value: TOMLValue
        /// From 1.
        var line: Int
    }

    struct Problem: Error, Sendable, Equatable {
        var line: Int
        var message: String
    }

    /// Inline tables are flattened: `a = {b = 1}` gives `a.b`. Tables of a list are not: `[[a]]`, as often as it stands, is one
    /// entry on its first line, like `a = [{…}, {…}]`.
    var entries: [Entry] = []
    /// Headers in the order of the text, for tables without a key.
    var tables: [(path: [String], line: Int)] = []
    var problems: [Problem] = []

    init(_ text: [UInt8]) {
        var parser = TOMLParser(text)
        parser.parse()
        entries = parser.entries
        tables = parser.tables
        problems = parser.problems
    }
}

indirect enum TOMLValue: Sendable, Equatable {
    case string(String)
    case integer(Int64)
    case float(Double)
    case boolean(Bool)
    /// Dates and times as they were written: no key of ours takes one.
    case dateTime(String)
    case array([TOMLValue])
    /// In a list.
    case table([TOMLDocument.Entry])

    /// For "is a …" in a message.
    var kind: String {
        switch self {
        case .string: "a text"
        case .integer: "a whole number"
        case .float: "a decimal number"
        case .boolean: "true or false"
        case .dateTime: "a date"
        case .array: "a list"
        case .table: "a table"
        }
    }
}
