/// How a kind of value is read and shown: from TOML, from text (environment and flags), and back as TOML.
///
/// A reader returns the value or says what was wrong as a clause; the key adds where and what was expected.
struct ConfigType<Value: Sendable>: Sendable {
    struct Mistake: Error {
        var what: String
        /// Of the file, where that is another than the key's own.
        var line: Int?
        /// What else is wrong, where one value is made of several.
        var others: [Mistake] = []
        init(_ what: String, line: Int? = nil) {
            self.what = what
            self.line = line
        }
    }

    /// For the table of keys: "size".
    var name: String
    /// After "expected": `a size, e.g. "128mb"`.
    var expected: String
    var fromText: @Sendable (String) throws(Mistake) -> Value
    var fromTOML: @Sendable (TOMLValue) throws(Mistake) -> Value
    /// As a TOML value.
    var show: @Sendable (Value) -> String
}

extension ConfigType where Value == Bool {
    static var boolean: Self {
        Self(
            name: "true or false", expected: "true or false",
            fromText: { text throws(Mistake) in
                switch text {
                case "true": true
                case "false": false
                default: throw Mistake("\"\(text)\" is neither true nor false")
                }
            },
            fromTOML: { value throws(Mistake) in
                guard case .boolean(let boolean) = value else { throw wrongKind(value) }
                return boolean
            },
            show: { $0 ? "true" : "false" })
    }
}

extension ConfigType where Value: FixedWidthInteger {
    /// A plain number without unit.
    static func number(_ range: ClosedRange<Value>, example: Value) -> Self {
        let check: @Sendable (Int64) throws(Mistake) -> Value = { number throws(Mistake) in
            guard let value = Value(exactly: number), range.contains(value) else {
                throw Mistake("\(number) is out of range")
            }
            return value
        }
        return Self(
            name: "number",
            expected: "a whole number from \(range.lowerBound) to \(range.upperBound), e.g. \(example)",
            fromText: { text throws(Mistake) in
                guard let number = Int64(text) else { throw Mistake("\"\(text)\" is not a whole number") }
                return try check(number)
            },
            fromTOML: { value throws(Mistake) in
                guard case .integer(let number) = value else { throw wrongKind(value) }
                return try check(number)
            },
            show: { String($0) })
    }
}

extension ConfigType where Value == Double {
    /// From nothing to all; what is not nothing is at least a millionth of a millionth.
    static func share(example: Double) -> Self {
        let check: @Sendable (Double) throws(Mistake) -> Double = { share throws(Mistake) in
            guard share == 0 || (1e-12...1).contains(share) else { throw Mistake("\(share) is out of range") }
            return share
        }
        return Self(
            name: "share", expected: "a decimal number from 0 to 1, e.g. \(example)",
            fromText: { text throws(Mistake) in
                guard let share = Double(text) else { throw Mistake("\"\(text)\" is not a number") }
                return try check(share)
            },
            fromTOML: { value throws(Mistake) in
                switch value {
                case .float(let share): return try check(share)
                case .integer(let number): return try check(Double(number))
                default: throw wrongKind(value)
                }
            },
            show: { $0 == 0 ? "0" : $0 == 1 ? "1" : "\($0)" })
    }
}

extension ConfigType where Value == UInt64 {
    static func size(_ range: ClosedRange<UInt64>, example: String) -> Self {
        let check: @Sendable (UInt64) throws(Mistake) -> UInt64 = { bytes throws(Mistake) in
            guard bytes >= range.lowerBound else {
                throw Mistake(
                    "\(ByteSize.show(bytes)) is less than the smallest that works, \(ByteSize.show(range.lowerBound))")
            }
            guard bytes <= range.upperBound else { throw Mistake("more than \(ByteSize.show(range.upperBound))") }
            return bytes
        }
        let read: @Sendable (String) throws(Mistake) -> UInt64 = { text throws(Mistake) in
            switch ByteSize.parse(text) {
            case .bytes(let bytes): return try check(bytes)
            case .unitMissing: throw Mistake("\"\(text)\" needs a unit")
            case .malformed: throw Mistake("\"\(text)\" is no size")
            }
        }
        return Self(
            name: "size", expected: "a size of b, kb, mb, gb, Ki, Mi or Gi (powers of 1024), e.g. \"\(example)\"",
            fromText: read,
            fromTOML: { value throws(Mistake) in
                switch value {
                case .string(let text): return try read(text)
                case .integer(let number): throw Mistake("\(number) needs a unit and quotes")
                default: throw wrongKind(value)
                }
            },
            show: { "\"\(ByteSize.show($0))\"" })
    }

    /// Milliseconds inside.
    static func duration(_ range: ClosedRange<UInt64>, example: String) -> Self {
        let check: @Sendable (UInt64) throws(Mistake) -> UInt64 = { milliseconds throws(Mistake) in
            guard milliseconds >= range.lowerBound else {
                throw Mistake("\(TimeSpan.show(milliseconds)) is less than \(TimeSpan.show(range.lowerBound))")
            }
            guard milliseconds <= range.upperBound else {
                throw Mistake("\(TimeSpan.show(milliseconds)) is more than \(TimeSpan.show(range.upperBound))")
            }
            return milliseconds
        }
        let read: @Sendable (String) throws(Mistake) -> UInt64 = { text throws(Mistake) in
            guard let milliseconds = TimeSpan.parse(text) else { throw Mistake("\"\(text)\" is no duration") }
            return try check(milliseconds)
        }
        return Self(
            name: "duration", expected: "a duration in ms, s, m or h, or plain seconds, e.g. \"\(example)\"",
            fromText: read,
            fromTOML: { value throws(Mistake) in
                switch value {
                case .string(let text): return try read(text)
                case .integer(let seconds): return try read(String(seconds))
                case .float(let seconds):
                    guard let milliseconds = TimeSpan.milliseconds(seconds: seconds) else {
                        throw Mistake("\(seconds) is no duration")
                    }
                    return try check(milliseconds)
                default: throw wrongKind(value)
                }
            },
            show: { "\"\(TimeSpan.show($0))\"" })
    }
}

extension ConfigType where Value: RawRepresentable & CaseIterable, Value.RawValue == String {
    static var choice: Self {
        let names = Value.allCases.map(\.rawValue)
        let read: @Sendable (String) throws(Mistake) -> Value = { text throws(Mistake) in
            guard let value = Value(rawValue: text) else {
                let near = NearestName.of(text, among: names).map { "; did you mean \"\($0)\"?" } ?? ""
                throw Mistake("\"\(text)\" is not known\(near)")
            }
            return value
        }
        return Self(
            name: names.joined(separator: ", "),
            expected: "one of " + names.map { "\"\($0)\"" }.joined(separator: ", "),
            fromText: read,
            fromTOML: { value throws(Mistake) in
                guard case .string(let text) = value else { throw wrongKind(value) }
                return try read(text)
            },
            show: { "\"\($0.rawValue)\"" })
    }
}

extension ConfigType where Value == String {
    /// `check` says what is wrong with a text, or nil.
    static func text(
        name: String = "text", expected: String, check: @escaping @Sendable (String) -> String? = { _ in nil }
    ) -> Self {
        let read: @Sendable (String) throws(Mistake) -> String = { text throws(Mistake) in
            if text.utf8.contains(0) { throw Mistake("a zero byte stands in it") }
            if let what = check(text) { throw Mistake(what) }
            return text
        }
        return Self(
            name: name, expected: expected, fromText: read,
            fromTOML: { value throws(Mistake) in
                guard case .string(let text) = value else { throw wrongKind(value) }
                return try read(text)
            },
            show: { TOMLText.quote($0) })
    }
}

extension ConfigType where Value == Secret {
    /// Never repeated in a message.
    static var secret: Self {
        Self(
            name: "secret", expected: "a text in quotes",
            fromText: { text throws(Mistake) in Secret(text) },
            fromTOML: { value throws(Mistake) in
                guard case .string(let text) = value else { throw Mistake("is \(value.kind)") }
                return Secret(text)
            },
            show: { TOMLText.quote($0.description) })
    }
}

extension ConfigType where Value == [String] {
    /// In text, the parts stand between commas or blanks, or it is a TOML list and begins with [. `check` says what is wrong with a part, or nil.
    static func list(
        name: String, expected: String, check: @escaping @Sendable (String) -> String? = { _ in nil }
    ) -> Self {
        let checkAll: @Sendable ([String]) throws(Mistake) -> [String] = { parts throws(Mistake) in
            for part in parts {
                if part.isEmpty { throw Mistake("the list holds an empty text") }
                if let what = check(part) { throw Mistake(what) }
            }
            return parts
        }
        let read: @Sendable (String) throws(Mistake) -> [String] = { text throws(Mistake) in
            try checkAll(text.split(whereSeparator: { $0 == "," || $0 == " " || $0 == "\t" }).map(String.init))
        }
        let fromTOML: @Sendable (TOMLValue) throws(Mistake) -> [String] = { value throws(Mistake) in
            switch value {
            case .string(let text): return try read(text)
            case .array(let values):
                var parts: [String] = []
                for value in values {
                    guard case .string(let part) = value else { throw Mistake("the list holds \(value.kind)") }
                    parts.append(part)
                }
                return try checkAll(parts)
            default: throw wrongKind(value)
            }
        }
        return Self(
            name: name, expected: expected,
            fromText: { text throws(Mistake) in
                guard text.first(where: { $0 != " " && $0 != "\t" }) == "[" else { return try read(text) }
                guard let value = try valueOfTOML(text) else {
                    throw Mistake("\"\(text)\" begins with [ and is no list")
                }
                return try fromTOML(value)
            },
            fromTOML: fromTOML,
            show: { "[" + $0.map(TOMLText.quote).joined(separator: ", ") + "]" })
    }
}

extension ConfigType where Value == UpstreamAddress {
    static var upstream: Self {
        let read: @Sendable (String) throws(Mistake) -> UpstreamAddress = { text throws(Mistake) in
            do throws(UpstreamAddress.Malformed) {
                return try UpstreamAddress(parsing: text)
            } catch {
                throw Mistake(error.what)
            }
        }
        return Self(
            name: "address",
            expected:
                "HOST:PORT, HOST (port 6379), [IPV6]:PORT, redis://HOST:PORT or, for TLS, rediss://HOST:PORT, e.g. \"redis.default.svc:6379\"",
            fromText: read,
            fromTOML: { value throws(Mistake) in
                guard case .string(let text) = value else { throw wrongKind(value) }
                return try read(text)
            },
            show: { $0.host.isEmpty ? "\"\"" : "\"\($0)\"" })
    }
}

extension ConfigType {
    /// A text, of a flag or the environment, that is to be one TOML value; nil when it is more.
    static func valueOfTOML(_ text: String) throws(Mistake) -> TOMLValue? {
        let document = TOMLDocument(Array("value = \(text)".utf8))
        if let problem = document.problems.first { throw Mistake("\"\(text)\": \(problem.message)") }
        guard document.tables.isEmpty, document.entries.count == 1, let entry = document.entries.first,
            entry.path == ["value"]
        else { return nil }
        return entry.value
    }

    fileprivate static func wrongKind(_ value: TOMLValue) -> Mistake {
        switch value {
        case .string(let text): Mistake("\"\(text)\" is a text in quotes")
        case .integer(let number): Mistake("\(number) is a whole number without quotes")
        case .float(let number): Mistake("\(number) is a decimal number")
        case .boolean(let boolean): Mistake("\(boolean) is not in quotes and means yes or no")
        case .dateTime(let text): Mistake("\(text) is a date")
        case .array: Mistake("is a list")
        case .table: Mistake("is a table")
        }
    }
}
