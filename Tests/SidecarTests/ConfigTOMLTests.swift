import Testing

@testable import Sidecar

@Suite("the TOML reader")
struct ConfigTOMLTests {
    private func read(_ text: String) -> TOMLDocument { TOMLDocument(Array(text.utf8)) }

    private func value(_ text: String) -> TOMLValue? {
        let document = read("k = " + text)
        #expect(document.problems.isEmpty, "\(text): \(document.problems)")
        return document.entries.first?.value
    }

    @Test("knows every kind of value")
    func values() {
        #expect(value("\"a\\tb \\u00e9 \\U0001F600\"") == .string("a\tb é 😀"))
        #expect(value("'C:\\path'") == .string("C:\\path"))
        #expect(value("\"\"") == .string(""))
        #expect(value("\"\"\"\nfirst\n\"quoted\" second\\\n   third\"\"\"") == .string("first\n\"quoted\" secondthird"))
        #expect(value("'''\nas\\is'''") == .string("as\\is"))
        #expect(value("\"\"\"two quotes\"\"\"\"\"") == .string("two quotes\"\""))
        #expect(value("1_000") == .integer(1000))
        #expect(value("-17") == .integer(-17))
        #expect(value("0xFF") == .integer(255))
        #expect(value("0o755") == .integer(493))
        #expect(value("0b101") == .integer(5))
        #expect(value("0.25") == .float(0.25))
        #expect(value("-1e3") == .float(-1000))
        #expect(value("inf") == .float(.infinity))
        #expect(value("true") == .boolean(true))
        #expect(value("1979-05-27T07:32:00Z") == .dateTime("1979-05-27T07:32:00Z"))
        #expect(value("1979-05-27 07:32:00") == .dateTime("1979-05-27 07:32:00"))
        #expect(value("[1, [\"a\"], # comment\n 2,\n]") == .array([.integer(1), .array([.string("a")]), .integer(2)]))
    }

    @Test("lists of tables are one entry, each table with lines of its own")
    func listsOfTables() {
        let document = read("[[a.b]]\nx = 1\ny.z = 2\n[c]\nk = 3\n[[a.b]]\nx = 4\n")
        #expect(document.problems.isEmpty, "\(document.problems)")
        #expect(
            document.entries == [
                .init(
                    path: ["a", "b"],
                    value: .array([
                        .table([
                            .init(path: ["x"], value: .integer(1), line: 2),
                            .init(path: ["y", "z"], value: .integer(2), line: 3),
                        ]),
                        .table([.init(path: ["x"], value: .integer(4), line: 7)]),
                    ]), line: 1),
                .init(path: ["c", "k"], value: .integer(3), line: 5),
            ])
        for text in [
            "[[a]\nx = 1", "a = 1\n[[a]]", "[a]\n[[a]]", "[[a]]\n[a]", "[[a]]\n[a.b]\nx = 1", "[[a]]\nx = 1\nx = 2",
            "k = [{x = 1, x = 2}]", "k = [{x = 1]",
        ] {
            #expect(!read(text).problems.isEmpty, "\(text)")
        }
    }

    @Test("gives every assignment its path and line, however the key is written")
    func paths() {
        let document = read(
            """
            # comment
            top = 1
            [a]
            x = "]\\"#" # [not.a.table]
            "quoted key" . 'sub' = 2
            list = [
              "[b]",
              "k = 1",
            ]
            after = 3
            [ a . b ]
            in = { p = 1, q.r = "}" }
            text = \"\"\"
            k = 1
            [c]
            \"\"\"
            last = 4
            """)
        #expect(document.problems.isEmpty)
        #expect(
            document.entries.map { "\(TOMLParser.show($0.path)):\($0.line)" } == [
                "top:2", "a.x:4", "a.quoted key.sub:5", "a.list:6", "a.after:10", "a.b.in.p:12", "a.b.in.q.r:12",
                "a.b.text:13", "a.b.last:17",
            ])
        #expect(document.tables.map { "\(TOMLParser.show($0.path)):\($0.line)" } == ["a:3", "a.b:11"])
    }

    @Test("reads files with CRLF and with a byte order mark")
    func lineEnds() {
        let document = read("\u{FEFF}[a]\r\nx = 1\r\n\r\ny = '2' # z\r\n")
        #expect(document.problems.isEmpty)
        #expect(document.entries.map(\.line) == [2, 4])
    }

    @Test(
        "says what is wrong and where",
        arguments: [
            ("k = 128mb", 1, "key \"k\": 128mb is no TOML value; expected text in quotes, e.g. k = \"128mb\""),
            ("\nk =", 2, "key \"k\" has no value"),
            ("k \"v\"", 1, "expected = after the key \"k\""),
            ("k = \"v", 1, "the text is not closed"),
            ("k = 'v\nx = 1", 1, "the text is not closed"),
            ("k = \"\"\"v\n\n", 1, "the text is not closed"),
            ("k = 1 2", 1, "unexpected \"2\""),
            ("k = 1\nk = 2", 2, "key \"k\" was already given on line 1"),
            ("[a]\n[b]\n[a]", 3, "[a] was already given on line 1"),
            ("a = 1\n[a]", 2, "[a] was already given on line 1"),
            ("a = 1\na.b = 2", 2, "\"a\" has its value already, on line 1"),
            ("a = {b = 1}\n[a.c]", 2, "\"a\" has its value already, on line 1"),
            ("[a", 1, "is not closed; expected ]"),
            ("k = [1, 2", 1, "is not closed"),
            ("k = [1 2]", 1, "expected , or ]"),
            ("k = {a = 1", 1, "expected , or }"),
            ("k = \"\\q\"", 1, "\\q is no escape"),
            ("k = \"\\uD800\"", 1, "hexadecimal digits of a Unicode character"),
            ("k = 012", 1, "is no TOML value"),
            ("k = 1.", 1, "is no TOML value"),
            ("k = 99999999999999999999", 1, "is no TOML value"),
            ("= 1", 1, "expected a key"),
            ("k = \"a\u{1}b\"", 1, "control character"),
        ])
    func problems(_ text: String, _ line: Int, _ part: String) {
        let problems = read(text).problems
        #expect(problems.first?.line == line, "\(problems)")
        #expect(problems.first?.message.contains(part) == true, "\(problems)")
    }

    @Test("goes on after a wrong line, so that all are reported at once")
    func goesOn() {
        let document = read("a = 1x\nb = 2\nc 3\n[d]\ne = \"\nf = 6\n")
        #expect(document.problems.map(\.line) == [1, 3, 5])
        #expect(document.entries.map { TOMLParser.show($0.path) } == ["b", "d.f"])
    }

    @Test("never repeats what may be a password")
    func secrets() {
        for text in [
            "password = hunter2", "password = \"a\" hunter2", "x = { Password = hunter2 }", "password hunter2",
        ] {
            let problems = read(text).problems
            #expect(!problems.isEmpty)
            #expect(!"\(problems)".contains("hunter2"), "\(problems)")
        }
    }

    @Test("survives any bytes and any cut of a file")
    func anyBytes() {
        #expect(TOMLDocument([0x6B, 0x0A, 0xFF, 0xFE]).problems.map(\.line) == [2])
        let text = Array(
            "[a.\"b\"]\nx = [1, {y = 'z'}, \"\"\"\\\n q\"\"\"]\nd = 1979-05-27 07:32:00\ni = { a.b = 0x1F, c = -inf }\n"
                .utf8)
        for end in 0...text.count { _ = TOMLDocument(Array(text[..<end])) }
        var generator = SystemRandomNumberGenerator()
        let alphabet = Array("[]{}=.,\"'\\#\n\r ab01_-+:TuU".utf8)
        for _ in 0..<5_000 {
            let count = Int.random(in: 0..<40, using: &generator)
            _ = TOMLDocument((0..<count).map { _ in alphabet.randomElement(using: &generator) ?? 0 })
        }
        _ = TOMLDocument(Array(String(repeating: "[", count: 100_000).utf8))
        let deep = TOMLDocument(Array(("k = " + String(repeating: "[", count: 100_000)).utf8))
        #expect(deep.problems.first?.message.contains("nested too deeply") == true)
    }
}
