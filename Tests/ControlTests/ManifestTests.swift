import Foundation
import Testing

@testable import Control

@Suite("Manifests")
struct ManifestTests {
    private func injected(_ text: String) throws -> String {
        var stream = try ManifestStream(text)
        for index in stream.documents.indices {
            guard var object = stream.documents[index].object else { continue }
            var isChanged = false
            let meaning = JSON(object)
            for place in PodTemplate.places(in: meaning) {
                guard let pod = meaning.at(place.pointer),
                    case .injected(let patch, _) = Injector().decide(pod: pod, namespace: place.namespace)
                else { continue }
                try object.apply(patch.map { $0.below(place.pointer) })
                isChanged = true
            }
            if isChanged { try stream.documents[index].replace(object) }
        }
        return stream.documents.map(\.text).joined()
    }

    private static let template = """
        template:
          metadata: {annotations: {ferrite.io/sidecar-inject: "true"}}
          spec: {containers: [{name: app, image: app}]}
        """

    private static let others: [String] = [
        "", "\n", "# nothing\n", "a: 1", "a: 1\n---\n",
        "---\n---\na: {b:   c}  # d\n...\n---\r\nx: |\n  --- no marker\n  y\n",
        "{\"kind\": \"Pod\",\n  \"x\": 1}\n", "kind: Pod\nmetadata: {}\n", "kind: Deployment\nspec: {}\n",
        "kind: List\nitems: 3\n", "- a\n- b\n", "text\n", "\u{FEFF}a: 1\r", "a: 1\r\n---\t# b\r\nb: 1\r\n",
        "{\"a\": \"}{\"}{\"b\": [{}, {}]}\n\n{\"c\": \"\\\"}{\"}", "{a: b}\n", "\u{FEFF}{\"a\": 1}\n{\"b\": 1}",
        "\u{FEFF}---\n\u{FEFF}a: 1\nb: \"\\uFEFFc\"\n", "a: !!int x\nb: !own {}\nc: !!binary '!'\n",
        "apiVersion: example.com/v1\nkind: Job\nspec:\n\(template.indented(2))\n",
    ]

    @Test("What is not touched keeps every byte", arguments: others)
    func untouched(_ text: String) throws {
        #expect(try injected(text) == text)
    }

    /// What holds the template, and how deep it is.
    private static let workloads: [(kind: String, head: String, columns: Int)] = [
        ("Deployment", "spec:", 2), ("StatefulSet", "spec:", 2), ("DaemonSet", "spec:", 2), ("ReplicaSet", "spec:", 2),
        ("ReplicationController", "spec:", 2), ("Job", "spec:", 2), ("PodTemplate", "", 0),
        ("CronJob", "spec:\n  jobTemplate:\n    spec:", 6), ("List", "items:\n- kind: Deployment\n  spec:", 4),
    ]

    @Test("Pods are found in each kind of workload, and in lists", arguments: workloads)
    func kinds(_ kind: String, _ head: String, _ columns: Int) throws {
        let text = "kind: \(kind)\n\(head)\n\(Self.template.indented(columns))\n"
        let once = try injected(text)
        #expect(once.contains("name: ferrite-sidecar"), "\(once)")
        #expect(try injected(once) == once)
    }

    @Test("In a list of one kind objects need not say it")
    func listsOfOneKind() throws {
        let item =
            "items: [{spec: {template: {metadata: {annotations: {ferrite.io/sidecar-inject: \"true\"}},"
            + " spec: {containers: [{name: a}]}}}}]\n"
        #expect(try injected("apiVersion: apps/v1\nkind: DeploymentList\n" + item).contains("name: ferrite-sidecar"))
        for other in [
            "apiVersion: v1\nkind: DeploymentList\n", "kind: List\n", "apiVersion: x/v1\nkind: RolloutList\n",
        ] {
            #expect(try injected(other + item) == other + item)
        }
        let pod =
            "items: [{metadata: {annotations: {ferrite.io/sidecar-inject: \"true\"}}, spec: {containers: [{name: a}]}}]\n"
        #expect(try injected("apiVersion: v1\nkind: PodList\n" + pod).contains("name: ferrite-sidecar"))
    }

    @Test("Where a sidecar is asked for in an object of another kind is found, and nowhere else")
    func unknownKinds() throws {
        func unknown(_ head: String) throws -> [String] {
            let text = "\(head)\nmetadata: {name: a}\nspec:\n\(Self.template.indented(2))\n"
            let object = try #require(try ManifestStream(text).documents[0].object)
            return PodTemplate.unknown(in: JSON(object)).map { "\($0.object): \($0.kind)" }
        }
        #expect(
            try unknown("apiVersion: argoproj.io/v1alpha1\nkind: Rollout") == [
                "Rollout/a: argoproj.io/v1alpha1 Rollout"
            ])
        #expect(try unknown("apiVersion: example.com/v1\nkind: Job") == ["Job/a: example.com/v1 Job"])
        #expect(try unknown("apiVersion: apps/v1\nkind: Deployment") == [])
        let list: JSON = [
            "kind": "List",
            "items": [
                ["kind": "Set", "spec": ["podMetadata": ["annotations": ["ferrite.dev/sidecar-inject": "true"]]]],
                ["kind": "Set", "metadata": ["annotations": ["ferrite.io/sidecar-inject": "false"]]],
                ["kind": "Pod", "metadata": ["annotations": ["ferrite.io/sidecar-inject": "true"]]],
            ],
        ]
        #expect(PodTemplate.unknown(in: list).map(\.object) == ["Set/?"])
    }

    @Test("Only the document that is touched is written anew, and says what it said")
    func touched() throws {
        let before = "# first\na:   1\n---\n# of the pod\n"
        let pod = """
            kind: Pod
            metadata:
              annotations: {"ferrite.io/sidecar-inject": 'true', on: "yes", date: 2026-01-01}
            spec:
              containers:
              - name: app   # a comment that goes
                command: ["sh", '-c', "echo a\\necho b"]
              volumes: [{name: v, secret: {secretName: s, defaultMode: 0400}}]

            """
        let after = "---\n\nb:   2"
        let text = try injected(before + pod + after)
        #expect(text.hasPrefix(before + "kind: Pod\n") && text.hasSuffix(after))
        for kept in ["defaultMode: 0400", "'true'", "\"yes\"", "2026-01-01", "echo a\\necho b"] {
            #expect(text.contains(kept), "\(kept) in \(text)")
        }
    }

    @Test("Anchors and merge keys are carried out where they are in the way")
    func anchors() throws {
        let text = try injected(
            """
            kind: Pod
            metadata: {annotations: {ferrite.io/sidecar-inject: "true"}}
            x: &base {image: app, env: [{name: A, value: b}]}
            spec: {containers: [{name: app, <<: *base}]}
            """)
        #expect(text.contains("name: REDIS_URL") && !text.contains("<<"))
    }

    @Test("A text by its tag stays one, and what Kubernetes takes for a text is one")
    func tags() throws {
        let text = try injected(
            """
            kind: Pod
            metadata: {annotations: {ferrite.io/sidecar-inject: "true", a: !!str 0123, b: !!str , c: ! 456}}
            spec: {containers: [{name: app}]}
            """)
        for kept in ["a: \"0123\"", "b: \"\"", "c: \"456\""] { #expect(text.contains(kept), "\(text)") }
        let values: [(String, JSON)] = [
            ("12:30", "12:30"), (".nan", ".nan"), ("-.inf", "-.inf"), ("0400", 256), ("1_000", 1000),
            ("18446744073709551615", .number(18_446_744_073_709_551_615)), ("1e3", .number(1000)),
            ("2026-01-01", "2026-01-01"),
        ]
        for (written, meant) in values {
            let object = try #require(try ManifestStream("x: \(written)\n").documents[0].object)
            #expect(JSON(object)["x"] == meant, "\(written)")
        }
    }

    private static let pod =
        "kind: Pod\nmetadata: {annotations: {ferrite.io/sidecar-inject: \"true\"}}\n"
        + "spec: {containers: [{name: app}]}\n"

    @Test("A byte order mark at the beginning of a file or of a document is no part of a value")
    func byteOrderMarks() throws {
        let text = try injected("\u{FEFF}# of the file\n" + Self.pod + "---\n\u{FEFF}" + Self.pod)
        #expect(text.hasPrefix("\u{FEFF}# of the file\nkind: Pod\n") && text.contains("\n---\nkind: Pod\n"), "\(text)")
        #expect(text.components(separatedBy: "name: ferrite-sidecar").count == 3)
        #expect(try injected(text) == text)
        let json =
            #"{"kind":"Pod","metadata":{"annotations":{"ferrite.io/sidecar-inject":"true"}},"spec":{"containers":[{}]}}"#
        #expect(try injected("\u{FEFF}" + json).hasPrefix("\u{FEFF}{\n"))
    }

    @Test("JSON objects one after the other are each what they are")
    func jsonStream() throws {
        let pod =
            #"{"kind":"Pod","metadata":{"annotations":{"ferrite.io/sidecar-inject":"true"}},"spec":{"containers":[{}]}}"#
        let other = #"{"kind": "Service",  "x": "}{\"}{"}"#
        let stream = try ManifestStream(other + "\n\n" + pod + pod + "\n---\na: 1\n")
        #expect(stream.documents.map(\.line) == [1, 3, 3, 4])
        #expect(stream.documents.map(\.isJSON) == [true, true, true, false])
        #expect(stream.documents.map(\.isContinued) == [false, true, true, false])
        let text = try injected(other + "\n" + pod + pod)
        #expect(text.hasPrefix(other + "\n{\n"))
        #expect(text.components(separatedBy: "\"ferrite-sidecar\"").count == 3)
        #expect(try injected(text) == text)
        #expect(throws: ManifestStream.Malformed.self) { try ManifestStream(pod + " x") }
    }

    @Test("The standard tags mean what they mean to Kubernetes, and are not needed in what is written")
    func standardTags() throws {
        let tagged: [(written: String, meant: JSON, anew: String)] = [
            ("!!int \"3\"", 3, "3"), ("!!int '0x10'", 16, "0x10"), ("!!int 3", 3, "3"), ("!!float \"3\"", 3, "3"),
            ("!!float '1.5'", .number(1.5), "1.5"), ("!!bool \"true\"", true, "true"), ("!!null ''", .null, "null"),
            ("!!str 3", "3", "\"3\""), ("!!binary aGVsbG8=", "hello", "\"hello\""),
            ("!!binary |\n  aGVs\n  bG8=\n", "hello", "\"hello\""),
        ]
        for (written, meant, anew) in tagged {
            let document = try ManifestStream("x: \(written)\n").documents[0]
            let object = try #require(document.object)
            #expect(JSON(object)["x"] == meant && document.flaw == nil, "\(written)")
            #expect(try ManifestStream.yaml(object) == "x: \(anew)\n", "\(written)")
        }
    }

    @Test("Tags of lists and objects are not needed")
    func tagsOfLists() throws {
        let document = try ManifestStream("x: !!map {a: !!seq [1]}\n").documents[0]
        let object = try #require(document.object)
        #expect(JSON(object) == ["x": ["a": [1]]] && document.flaw == nil)
        #expect(try !ManifestStream.yaml(object).contains("!"))
    }

    @Test("What would be another value when it is written anew is told with its line")
    func flaws() throws {
        let flawed = [
            "!!int x", "!!int 1.5", "!!int \"12:30\"", "!!bool 1", "!!null x", "!!float x", "!!binary '%'",
            "!!binary /w==",
            "!own 3", "!!set {a}", "!!omap []", "{!!binary YQ==: 1}", "\"\u{FEFF}x\"", "\"\\uFEFFx\"",
            "\"\\U0000feffx\"",
        ]
        for value in flawed {
            let stream = try ManifestStream("a: 1\n---\n# b\nb: \(value)\n")
            #expect(stream.documents[0].flaw == nil && stream.documents[1].flaw?.line == 4, "\(value)")
        }
    }

    @Test("In JSON documents without an object are left out")
    func jsonOfSeveral() throws {
        let stream = try ManifestStream("# Source: a\n---\nkind: Service\nx: .nan\n---\n# only\n---\n")
        let text = try ManifestStream.json(stream.documents.compactMap(\.object))
        #expect(text.contains("\"kind\" : \"Service\"") && !text.contains("null") && !text.contains("List"))
    }

    @Test("JSON stays JSON")
    func json() throws {
        let text = try injected(
            #"{"kind":"Pod","metadata":{"annotations":{"ferrite.io/sidecar-inject":"true"}},"spec":{"containers":[{"name":"a","tty":true,"x":"\ud83d\ude00 1","y":1.5,"z":null}]}}"#
        )
        #expect(
            text.contains(#""tty" : true"#) && text.contains("😀 1") && text.contains(#""y" : 1.5"#)
                && text.contains(#""z" : null"#))
    }

    @Test("What is no YAML is told with its line")
    func malformed() {
        #expect(throws: ManifestStream.Malformed.self) { try ManifestStream("a: 1\n---\nb: [1\n") }
        do {
            _ = try ManifestStream("a: 1\n---\nb: 1\nb: 2\nc: [\n")
        } catch {
            #expect(error.line >= 3, "\(error)")
        }
    }

    @Test(
        "Texts that YAML would take for something else are quoted",
        arguments: ["yes", "on", "1", "1e3", "null", "~", "", "0x1", "2026-01-01", "y", "a: b", "- a", "#a", " a"])
    func quoted(_ text: String) throws {
        let stream = try ManifestStream(try ManifestStream.yaml((["x": .string(text)] as JSON).node))
        let object = try #require(stream.documents[0].object)
        #expect(JSON(object)["x"] == .string(text))
    }
}

extension String {
    fileprivate func indented(_ columns: Int) -> String {
        split(separator: "\n").map { String(repeating: " ", count: columns) + $0 }.joined(separator: "\n")
    }
}
