import Foundation
import Testing

@testable import Control

@Suite("JSON that may be anybody's")
struct JSONReaderTests {
    @Test(
        "values",
        arguments: [
            ("null", .null), (" true\n", .bool(true)), ("false", .bool(false)), ("0", 0), ("-1", -1),
            ("9223372036854775807", .integer(.max)), ("9223372036854775808", .number(9_223_372_036_854_775_808)),
            ("1.5", .number(1.5)), ("1e2", .number(100)), ("-0.5E-1", .number(-0.05)), ("\"\"", ""),
            ("\"a\\n\\\"\\\\\\/\\b\\f\\r\\t\"", "a\n\"\\/\u{8}\u{c}\r\t"), ("\"\\u00e9é\"", "éé"),
            ("\"\\ud83d\\ude00\"", "😀"), ("\"\\ud83d\\u0041\\udead\"", "\u{FFFD}A\u{FFFD}"), ("[]", []), ("{}", [:]),
            ("[1 ,[ ] ,{\"a\" : [2]}]", [1, [], ["a": [2]]]), ("{\"b\":1,\"a\":2,\"b\":3}", ["b": 3, "a": 2]),
        ] as [(String, JSON)])
    func values(_ text: String, _ value: JSON) throws {
        #expect(try JSONReader.read(text.utf8) == value)
    }

    @Test(
        "what is none is refused, and where is told",
        arguments: [
            "", " ", "nul", "tru", "+1", "01", "1.", ".5", "1e", "-", "1e999", "\"", "\"a", "\"\\x\"", "\"\\u12g4\"",
            "\"\\u12", "\"\u{1}\"", "[", "[1", "[1,]", "[1 2]", "{", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}",
            "1 2",
            "{}x", "'a'", "NaN",
        ])
    func wrong(_ text: String) {
        let failure = #expect(throws: JSONReader.Failure.self) { try JSONReader.read(text.utf8) }
        #expect(failure?.description.isEmpty == false)
    }

    @Test("text that is not UTF-8 is refused")
    func notUTF8() {
        for bytes in [[0x22, 0xFF, 0x22], [0x22, 0xC3, 0x22], [0x22, 0x5C, 0x6E, 0x80, 0x22]] as [[UInt8]] {
            #expect(throws: JSONReader.Failure.self) { try JSONReader.read(bytes) }
        }
    }

    @Test("members keep their order")
    func order() throws {
        let object = try JSONReader.read("{\"z\":1,\"a\":2}".utf8)
        #expect(object == ["z": 1, "a": 2] && object != ["a": 2, "z": 1])
    }

    @Test("depth is bounded, width is not")
    func depth() throws {
        func nested(_ depth: Int) -> String {
            String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
        }
        #expect(try JSONReader.read(nested(JSONReader.depthMax).utf8).elements.count == 1)
        #expect(throws: JSONReader.Failure.self) { try JSONReader.read(nested(JSONReader.depthMax + 1).utf8) }
        #expect(throws: JSONReader.Failure.self) {
            try JSONReader.read(String(repeating: "{\"a\":", count: 500_000).utf8)
        }
        let wide = "[" + Array(repeating: nested(100), count: 5_000).joined(separator: ",") + "]"
        #expect(try JSONReader.read(wide.utf8).elements.count == 5_000)
    }

    @Test("what JSONEncoder writes is read back")
    func roundTrip() throws {
        let value: JSON = ["a": [1, .number(1.25), .null, true, "\u{2028}\"\\ü😀\u{7}"], "b": ["c": []]]
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        #expect(try JSONReader.read(encoder.encode(value)) == value)
    }
}
