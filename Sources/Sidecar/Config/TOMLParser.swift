/// The reader behind `TOMLDocument`: recursive descent over bytes, one method a rule of the grammar.
///
///     parse ─► line ─┬─ [table]
///                    └─ key = value ─► string | array | inline table | bare (number, boolean, date)
struct TOMLParser {
    typealias Problem = TOMLDocument.Problem

    private(set) var entries: [TOMLDocument.Entry] = []
    private(set) var tables: [(path: [String], line: Int)] = []
    private(set) var problems: [Problem] = []

    private let bytes: [UInt8]
    private var at = 0
    private var line = 1
    private var depth = 0
    private var table: [String] = []
    /// Behind [[…]]: the entry of its list, whose last table takes the assignments.
    private var list: Int?
    private var seen: [[String]: Seen] = [:]
    /// The same inside of the last table of `list`.
    private var listSeen: [[String]: Seen] = [:]
    /// The line may hold a secret: messages do not repeat its text.
    private var isSecret = false

    /// What a path has been used for so far, and where.
    private struct Seen {
        enum Use { case value, header, implied, dotted, list }
        var use: Use
        var line: Int
    }

    /// A deeper nesting than any sane file; keeps hostile input from eating the stack.
    private static let depthMax = 32

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
        if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { at = 3 }
    }

    mutating func parse() {
        if String(validating: bytes, as: UTF8.self) == nil {
            problems.append(Problem(line: firstLineThatIsNotUTF8(), message: "the file is not UTF-8 text"))
            return
        }
        while at < bytes.count {
            do throws(Problem) {
                try parseLine()
            } catch {
                problems.append(error)
                depth = 0
                skipRestOfLine()
            }
        }
    }

    private func firstLineThatIsNotUTF8() -> Int {
        for (index, line) in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated()
        where String(validating: line, as: UTF8.self) == nil {
            return index + 1
        }
        return 1
    }

    // MARK: lines

    private mutating func parseLine() throws(Problem) {
        isSecret = false
        skipBlank()
        guard let byte = peek() else { return }
        switch byte {
        case UInt8(ascii: "\n"), UInt8(ascii: "\r"), UInt8(ascii: "#"):
            try endLine()
        case UInt8(ascii: "["):
            try parseHeader()
            try endLine()
        default:
            try parseAssignmentOfSection()
            try endLine()
        }
    }

    private mutating func parseAssignmentOfSection() throws(Problem) {
        guard let list, case .array(var tables) = entries[list].value, case .table(var members)? = tables.popLast()
        else {
            return try parseAssignment(below: table)
        }
        let outer = (entries, seen)
        entries = members
        seen = listSeen
        defer {
            members = entries
            listSeen = seen
            (entries, seen) = outer
            entries[list].value = .array(tables + [.table(members)])
        }
        try parseAssignment(below: [])
    }

    private mutating func parseHeader() throws(Problem) {
        let headerLine = line
        at += 1
        list = nil
        if take("[") { return try parseListHeader(headerLine) }
        let path = try parseKeyPath()
        guard take("]") else { throw problem("the table's name is not closed; expected ]") }
        try checkPrefixes(of: path, count: path.count - 1, mark: .implied)
        if let before = seen[path], before.use != .implied {
            throw Problem(line: headerLine, message: "[\(Self.show(path))] was already given on line \(before.line)")
        }
        seen[path] = Seen(use: .header, line: headerLine)
        tables.append((path, headerLine))
        table = path
    }

    /// [[path]], behind its brackets: another table of a list.
    private mutating func parseListHeader(_ headerLine: Int) throws(Problem) {
        let path = try parseKeyPath()
        guard take("]"), take("]") else { throw problem("the name of the list's table is not closed; expected ]]") }
        try checkPrefixes(of: path, count: path.count - 1, mark: .implied)
        table = path
        listSeen = [:]
        if let before = seen[path] {
            guard before.use == .list, let index = entries.lastIndex(where: { $0.path == path }),
                case .array(let tables) = entries[index].value
            else {
                throw Problem(
                    line: headerLine, message: "\"\(Self.show(path))\" was already given on line \(before.line)")
            }
            entries[index].value = .array(tables + [.table([])])
            list = index
            return
        }
        seen[path] = Seen(use: .list, line: headerLine)
        list = entries.count
        entries.append(.init(path: path, value: .array([.table([])]), line: headerLine))
    }

    private mutating func parseAssignment(below base: [String]) throws(Problem) {
        let keyLine = line
        let key = try parseKeyPath()
        if key.contains(where: { $0.lowercased().contains("password") }) { isSecret = true }
        guard take("=") else { throw problem("expected = after the key \"\(Self.show(key))\"") }
        skipBlank()
        let path = base + key
        try checkPrefixes(of: path, count: path.count - 1, mark: .dotted)
        if let before = seen[path] {
            throw Problem(
                line: keyLine, message: "key \"\(Self.show(path))\" was already given on line \(before.line)")
        }
        seen[path] = Seen(use: .value, line: keyLine)
        if peek() == UInt8(ascii: "{") {
            try parseInlineTable(path)
        } else {
            let value = try parseValue(of: key)
            entries.append(.init(path: path, value: value, line: keyLine))
        }
    }

    /// The first `count` parts of a path must be tables; unseen ones become `mark`.
    private mutating func checkPrefixes(of path: [String], count: Int, mark: Seen.Use) throws(Problem) {
        for length in 1..<max(count + 1, 1) {
            let prefix = Array(path[..<length])
            if let before = seen[prefix] {
                if before.use == .list {
                    throw problem("tables below [[\(Self.show(prefix))]] are not used here")
                }
                if before.use == .value {
                    throw problem("\"\(Self.show(prefix))\" has its value already, on line \(before.line)")
                }
            } else {
                seen[prefix] = Seen(use: mark, line: line)
            }
        }
    }

    private mutating func endLine() throws(Problem) {
        skipBlank()
        if peek() == UInt8(ascii: "#") { skipComment() }
        if peek() == UInt8(ascii: "\r") { at += 1 }
        guard let byte = peek() else { return }
        guard byte == UInt8(ascii: "\n") else {
            throw problem("unexpected \"\(restOfLine())\" after the value; one key = value a line")
        }
        newline()
    }

    // MARK: keys

    private mutating func parseKeyPath() throws(Problem) -> [String] {
        var path: [String] = []
        repeat {
            skipBlank()
            path.append(try parseKeyPart())
            guard path.count <= Self.depthMax else { throw problem("nested too deeply") }
            skipBlank()
        } while take(".")
        return path
    }

    private mutating func parseKeyPart() throws(Problem) -> String {
        switch peek() {
        case UInt8(ascii: "\""): return try parseBasicString()
        case UInt8(ascii: "'"): return try parseLiteralString()
        default: break
        }
        let start = at
        while let byte = peek(), Self.isBareKey(byte) { at += 1 }
        guard at > start else { throw problem("expected a key, found \"\(restOfLine())\"") }
        return text(start..<at)
    }

    private static func isBareKey(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"):
            true
        default: false
        }
    }

    // MARK: values

    private mutating func parseValue(of key: [String]) throws(Problem) -> TOMLValue {
        switch peek() {
        case UInt8(ascii: "\""):
            return .string(startsWith("\"\"\"") ? try parseMultilineBasicString() : try parseBasicString())
        case UInt8(ascii: "'"):
            return .string(startsWith("'''") ? try parseMultilineLiteralString() : try parseLiteralString())
        case UInt8(ascii: "["):
            return try parseArray(of: key)
        case UInt8(ascii: "{"):
            return .table(try parseTableOfList())
        case nil, UInt8(ascii: "\n"), UInt8(ascii: "\r"), UInt8(ascii: "#"):
            throw problem("key \"\(Self.show(key))\" has no value")
        default:
            return try parseBareValue(of: key)
        }
    }

    private mutating func parseArray(of key: [String]) throws(Problem) -> TOMLValue {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.depthMax else { throw problem("nested too deeply") }
        let openLine = line
        at += 1
        var values: [TOMLValue] = []
        while true {
            skipBlankLines()
            if take("]") { return .array(values) }
            guard peek() != nil else {
                throw Problem(line: openLine, message: "the list of \"\(Self.show(key))\" is not closed; expected ]")
            }
            values.append(try parseValue(of: key))
            skipBlankLines()
            if take(",") { continue }
            if take("]") { return .array(values) }
            throw Problem(line: openLine, message: "the list of \"\(Self.show(key))\" is not closed; expected , or ]")
        }
    }

    private mutating func parseTableOfList() throws(Problem) -> [TOMLDocument.Entry] {
        let outer = (entries, seen)
        entries = []
        seen = [:]
        defer { (entries, seen) = outer }
        try parseInlineTable([])
        return entries
    }

    private mutating func parseInlineTable(_ path: [String]) throws(Problem) {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.depthMax else { throw problem("nested too deeply") }
        at += 1
        skipBlank()
        /* Its inside is checked like a table's, then closed: nothing outside may add to it. */
        seen[path]?.use = .header
        if !take("}") {
            repeat {
                skipBlank()
                try parseAssignment(below: path)
                skipBlank()
            } while take(",")
            guard take("}") else { throw problem("{…} is not closed; expected , or }") }
        }
        seen[path]?.use = .value
    }

    private mutating func parseBareValue(of key: [String]) throws(Problem) -> TOMLValue {
        let start = at
        while let byte = peek(), !Self.endsBareValue(byte) { at += 1 }
        /* A date and a time may be separated by one blank. */
        if at - start == 10, peek() == UInt8(ascii: " "), at + 1 < bytes.count, Self.isDigit(bytes[at + 1]),
            bytes[start + 4] == UInt8(ascii: "-")
        {
            at += 1
            while let byte = peek(), !Self.endsBareValue(byte) { at += 1 }
        }
        let word = text(start..<at)
        if isSecret { throw problem("key \"\(Self.show(key))\": its value is no text in quotes") }
        switch word {
        case "true": return .boolean(true)
        case "false": return .boolean(false)
        case "inf", "+inf": return .float(.infinity)
        case "-inf": return .float(-.infinity)
        case "nan", "+nan", "-nan": return .float(.nan)
        default: break
        }
        if let integer = Self.integer(word) { return .integer(integer) }
        if let float = Self.float(word) { return .float(float) }
        if Self.looksLikeDate(word) { return .dateTime(word) }
        throw problem(
            "key \"\(Self.show(key))\": \(word) is no TOML value; expected text in quotes, e.g. \(key.last ?? "") = \"\(word)\""
        )
    }

    private static func endsBareValue(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\n"), UInt8(ascii: "\r"), UInt8(ascii: "#"),
            UInt8(ascii: ","), UInt8(ascii: "]"), UInt8(ascii: "}"):
            true
        default: false
        }
    }

    private static func isDigit(_ byte: UInt8) -> Bool { byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }

    /// Underscores may stand only between digits; without them, or nil.
    private static func withoutUnderscores(_ word: Substring) -> String? {
        if word.hasPrefix("_") || word.hasSuffix("_") || word.contains("__") { return nil }
        return String(word.filter { $0 != "_" })
    }

    private static func integer(_ word: String) -> Int64? {
        for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] where word.hasPrefix(prefix) {
            guard let digits = withoutUnderscores(word.dropFirst(2)), digits.first?.isHexDigit == true else {
                return nil
            }
            return Int64(digits, radix: radix)
        }
        let unsigned = word.hasPrefix("+") || word.hasPrefix("-") ? word.dropFirst() : word[...]
        guard let digits = withoutUnderscores(unsigned), !digits.isEmpty, digits.utf8.allSatisfy(isDigit),
            digits == "0" || !digits.hasPrefix("0")
        else { return nil }
        return Int64(word.hasPrefix("-") ? "-" + digits : digits)
    }

    private static func float(_ word: String) -> Double? {
        let unsigned = word.hasPrefix("+") || word.hasPrefix("-") ? word.dropFirst() : word[...]
        guard let plain = withoutUnderscores(unsigned), let first = plain.utf8.first, isDigit(first),
            plain.utf8.allSatisfy({ isDigit($0) || ".eE+-".utf8.contains($0) }),
            plain.contains(where: { ".eE".contains($0) }), !plain.contains(".e"), !plain.hasSuffix("."),
            let value = Double(plain)
        else { return nil }
        return word.hasPrefix("-") ? -value : value
    }

    private static func looksLikeDate(_ word: String) -> Bool {
        let shape = word.utf8.prefix(10).map { isDigit($0) ? UInt8(ascii: "d") : $0 }
        return shape == Array("dddd-dd-dd".utf8)
            || (shape.count >= 8 && shape.prefix(8).elementsEqual("dd:dd:dd".utf8))
    }

    // MARK: strings

    private mutating func parseBasicString() throws(Problem) -> String {
        at += 1
        var out: [UInt8] = []
        while let byte = peek() {
            switch byte {
            case UInt8(ascii: "\""):
                at += 1
                return String(decoding: out, as: UTF8.self)
            case UInt8(ascii: "\\"):
                try parseEscape(into: &out)
            case UInt8(ascii: "\n"):
                throw problem("the text is not closed; expected \" before the end of the line")
            default:
                try appendPlain(byte, to: &out)
            }
        }
        throw problem("the text is not closed; expected \"")
    }

    private mutating func parseLiteralString() throws(Problem) -> String {
        at += 1
        let start = at
        while let byte = peek(), byte != UInt8(ascii: "\n") {
            if byte == UInt8(ascii: "'") {
                let value = text(start..<at)
                at += 1
                return value
            }
            at += 1
        }
        throw problem("the text is not closed; expected ' before the end of the line")
    }

    private mutating func parseMultilineBasicString() throws(Problem) -> String {
        let openLine = line
        at += 3
        skipFirstNewline()
        var out: [UInt8] = []
        while let byte = peek() {
            if byte == UInt8(ascii: "\""), startsWith("\"\"\"") {
                return closeMultiline(UInt8(ascii: "\""), &out)
            }
            if byte == UInt8(ascii: "\\") {
                if !skipLineEndingBackslash() { try parseEscape(into: &out) }
            } else if byte == UInt8(ascii: "\n") {
                out.append(byte)
                newline()
            } else {
                try appendPlain(byte, to: &out)
            }
        }
        throw Problem(line: openLine, message: "the text is not closed; expected \"\"\"")
    }

    private mutating func parseMultilineLiteralString() throws(Problem) -> String {
        let openLine = line
        at += 3
        skipFirstNewline()
        var out: [UInt8] = []
        while let byte = peek() {
            if byte == UInt8(ascii: "'"), startsWith("'''") { return closeMultiline(UInt8(ascii: "'"), &out) }
            out.append(byte)
            if byte == UInt8(ascii: "\n") { newline() } else { at += 1 }
        }
        throw Problem(line: openLine, message: "the text is not closed; expected '''")
    }

    /// Up to two quotes may stand right before the closing three.
    private mutating func closeMultiline(_ quote: UInt8, _ out: inout [UInt8]) -> String {
        at += 3
        var extra = 0
        while extra < 2, peek() == quote {
            out.append(quote)
            at += 1
            extra += 1
        }
        return String(decoding: out, as: UTF8.self)
    }

    private mutating func skipFirstNewline() {
        if peek() == UInt8(ascii: "\r") { at += 1 }
        if peek() == UInt8(ascii: "\n") { newline() }
    }

    /// A backslash at the end of a line swallows it and the blanks that follow.
    private mutating func skipLineEndingBackslash() -> Bool {
        var look = at + 1
        while look < bytes.count,
            bytes[look] == UInt8(ascii: " ") || bytes[look] == UInt8(ascii: "\t")
                || bytes[look] == UInt8(ascii: "\r")
        {
            look += 1
        }
        guard look < bytes.count, bytes[look] == UInt8(ascii: "\n") else { return false }
        at = look
        while let byte = peek() {
            if byte == UInt8(ascii: "\n") {
                newline()
            } else if byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") || byte == UInt8(ascii: "\r") {
                at += 1
            } else {
                break
            }
        }
        return true
    }

    private mutating func appendPlain(_ byte: UInt8, to out: inout [UInt8]) throws(Problem) {
        if (byte < 0x20 && byte != UInt8(ascii: "\t") && byte != UInt8(ascii: "\r")) || byte == 0x7F {
            throw problem("a control character stands in the text; write it as \\u00XX")
        }
        out.append(byte)
        at += 1
    }

    private mutating func parseEscape(into out: inout [UInt8]) throws(Problem) {
        at += 1
        guard let byte = peek() else { throw problem("the text ends in a lone \\") }
        at += 1
        switch byte {
        case UInt8(ascii: "b"): out.append(0x08)
        case UInt8(ascii: "t"): out.append(0x09)
        case UInt8(ascii: "n"): out.append(0x0A)
        case UInt8(ascii: "f"): out.append(0x0C)
        case UInt8(ascii: "r"): out.append(0x0D)
        case UInt8(ascii: "\""), UInt8(ascii: "\\"): out.append(byte)
        case UInt8(ascii: "u"): try parseUnicode(digits: 4, into: &out)
        case UInt8(ascii: "U"): try parseUnicode(digits: 8, into: &out)
        default:
            throw problem("\\\(Unicode.Scalar(byte)) is no escape; a backslash is written \\\\, or the text in '…'")
        }
    }

    private mutating func parseUnicode(digits: Int, into out: inout [UInt8]) throws(Problem) {
        guard at + digits <= bytes.count, let code = UInt32(text(at..<at + digits), radix: 16),
            let scalar = Unicode.Scalar(code)
        else { throw problem("\\u wants \(digits) hexadecimal digits of a Unicode character") }
        at += digits
        out.append(contentsOf: Array(String(Character(scalar)).utf8))
    }

    // MARK: bytes

    private func peek() -> UInt8? { at < bytes.count ? bytes[at] : nil }

    private func startsWith(_ prefix: StaticString) -> Bool {
        let count = prefix.utf8CodeUnitCount
        guard at + count <= bytes.count else { return false }
        return (0..<count).allSatisfy { bytes[at + $0] == prefix.utf8Start[$0] }
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard peek() == UInt8(ascii: character) else { return false }
        at += 1
        return true
    }

    private mutating func newline() {
        at += 1
        line += 1
    }

    private mutating func skipBlank() {
        while let byte = peek(), byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") { at += 1 }
    }

    private mutating func skipBlankLines() {
        while let byte = peek() {
            switch byte {
            case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"): at += 1
            case UInt8(ascii: "\n"): newline()
            case UInt8(ascii: "#"): skipComment()
            default: return
            }
        }
    }

    private mutating func skipComment() {
        while let byte = peek(), byte != UInt8(ascii: "\n") { at += 1 }
    }

    private mutating func skipRestOfLine() {
        while let byte = peek(), byte != UInt8(ascii: "\n") { at += 1 }
        if at < bytes.count { newline() }
    }

    private func restOfLine() -> String {
        if isSecret { return "…" }
        var end = at
        while end < bytes.count, bytes[end] != UInt8(ascii: "\n"), bytes[end] != UInt8(ascii: "\r"), end - at < 40 {
            end += 1
        }
        return String(decoding: bytes[at..<end], as: UTF8.self)
    }

    private func text(_ range: Range<Int>) -> String { String(decoding: bytes[range], as: UTF8.self) }

    private func problem(_ message: String) -> Problem { Problem(line: line, message: message) }

    static func show(_ path: [String]) -> String { path.joined(separator: ".") }
}
