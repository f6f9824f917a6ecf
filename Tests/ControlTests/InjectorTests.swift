import Foundation
import OrderedCollections
import Testing

@testable import Control

/// Pods of Tests/ControlTests/Pods with what becomes of each beside it; FERRITE_WRITE_GOLDEN=1 writes that anew.
private enum Fixtures {
    static let folder = URL(filePath: #filePath).deletingLastPathComponent()
    static let pods = names(in: "Pods")
    static let reviews = names(in: "Admission")

    private static func names(in name: String) -> [String] {
        let all = try? FileManager.default.contentsOfDirectory(atPath: folder.appending(path: name).path)
        return (all ?? []).filter { $0.hasSuffix(".json") && !$0.hasSuffix(".golden.json") }.sorted()
    }

    static func json(_ path: String) throws -> JSON {
        try JSONReader.read(Data(contentsOf: folder.appending(path: path)))
    }

    static func text(_ json: JSON) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(json), as: UTF8.self) + "\n"
    }
}

@Suite("The injector")
struct InjectorTests {
    private let injector = Injector()

    /// As the webhook's patch and as a manifest's, which must come to the same.
    private func apply(_ patch: [PatchOperation], to pod: JSON) throws -> JSON {
        var changed = pod
        let isDone = changed.apply(patch)
        #expect(isDone)
        var node = pod.node
        try node.apply(patch)
        #expect(JSON(node) == changed)
        return changed
    }

    private func pod(
        _ annotations: [String: String] = ["ferrite.io/sidecar-inject": "true"],
        _ spec: JSON = ["containers": [["name": "app"]]]
    ) -> JSON {
        let members = OrderedMembers(
            uniqueKeysWithValues: annotations.sorted { $0.key < $1.key }.map { ($0, JSON.string($1)) })
        return ["metadata": ["annotations": .object(members)], "spec": spec]
    }

    @Test("What becomes of each kind of pod is as written beside it", arguments: Fixtures.pods)
    func golden(_ name: String) throws {
        guard
            case .injected(let patch, let warnings) = injector.decide(
                pod: try Fixtures.json("Pods/" + name), namespace: "shop")
        else {
            Issue.record("\(name) is not injected")
            return
        }
        let text = try Fixtures.text([
            "warnings": .array(warnings.map { .string($0) }), "patch": .array(patch.map(\.json)),
        ])
        let path = Fixtures.folder.appending(path: "Pods/" + name.replacing(".json", with: ".golden.json"))
        if ProcessInfo.processInfo.environment["FERRITE_WRITE_GOLDEN"] != nil {
            try text.write(to: path, atomically: true, encoding: .utf8)
        }
        #expect(try String(contentsOf: path, encoding: .utf8) == text, "FERRITE_WRITE_GOLDEN=1 writes it anew")
    }

    @Test("A pod that has got its sidecar gets no other, and can be had back as it was", arguments: Fixtures.pods)
    func twice(_ name: String) throws {
        let pod = try Fixtures.json("Pods/" + name)
        guard case .injected(let patch, _) = injector.decide(pod: pod, namespace: nil) else { return }
        let injected = try apply(patch, to: pod)
        #expect(injector.decide(pod: injected, namespace: nil) == .skipped(.alreadyInjected))
        guard case .removed(let back, _) = Uninjector.decide(pod: injected) else {
            Issue.record("nothing to take out")
            return
        }
        #expect(try Fixtures.text(apply(back, to: injected)) == Fixtures.text(pod))
    }

    @Test("A pod of any number of containers takes time by their number", .timeLimit(.minutes(1)))
    func manyContainers() {
        let asked = [
            "ferrite.io/sidecar-inject": "true", "ferrite.io/sidecar-env-override": "true",
            "ferrite.io/sidecar-tls-secret": "tls", "ferrite.io/sidecar-upstream": "rediss://redis:6379",
        ]
        let containers = (0..<64_000).map { index -> JSON in
            let env: JSON = index % 2 == 0 ? [] : [["name": "REDIS_URL", "value": "redis://redis/2"]]
            return ["name": .string("c\(index)"), "env": env]
        }
        let before = pod(asked, ["containers": .array(containers)])
        guard case .injected(let patch, let warnings) = injector.decide(pod: before, namespace: nil) else {
            Issue.record("not injected")
            return
        }
        // One for each container; ours, the volume, three annotations and the status.
        #expect(patch.count == containers.count + 6 && warnings.isEmpty)
        var changed = before
        let isDone = changed.apply(patch)
        guard isDone, case .removed(let back, _) = Uninjector.decide(pod: changed) else {
            Issue.record("not taken out")
            return
        }
        #expect(back.count == patch.count)
    }

    @Test("Volumes with the sidecar's name are taken out at once, however many there are")
    func manyVolumes() throws {
        let asked = [
            "ferrite.io/sidecar-inject": "true", "ferrite.io/sidecar-tls-secret": "tls",
            "ferrite.io/sidecar-upstream": "rediss://redis:6379",
        ]
        let spec: JSON = ["containers": [["name": "app"]], "volumes": [["name": "own"]]]
        let volumes = Array(repeating: JSON.object(["name": .string(SidecarVolume.name)]), count: 2000)
        let change = PatchOperation.replace(["spec", "volumes"], .array([["name": "own"]] + volumes))
        let changed = try apply([change], to: back(pod(asked, spec), changed: []).injected)
        guard case .removed(let patch, _) = Uninjector.decide(pod: changed) else {
            Issue.record("not taken out")
            return
        }
        // The variable, our container, the volumes, three annotations and the status.
        #expect(patch.count == 7)
    }

    @Test("Wherever the plain sidecar stands by now it is taken out, and of two equal variables the last comes back")
    func moved() throws {
        let asked = [
            "ferrite.io/sidecar-inject": "true", "ferrite.io/sidecar-native": "false",
            "ferrite.io/sidecar-env-override": "true",
        ]
        let helper: JSON = [
            "name": "helper",
            "env": [
                ["name": "REDIS_URL", "value": "one"], ["name": "SECRET", "value": "keep"],
                ["name": "REDIS_URL", "value": "two"],
            ],
        ]
        let before = pod(asked, ["containers": [["name": "app"], helper]])
        guard case .injected(let patch, _) = injector.decide(pod: before, namespace: nil) else {
            Issue.record("not injected")
            return
        }
        let injected = try apply(patch, to: before)
        var containers = try #require(injected["spec"]?["containers"]?.elements)
        containers.swapAt(0, 2)
        let shuffled = try apply([.replace(["spec", "containers"], .array(containers))], to: injected)
        guard case .removed(let back, _) = Uninjector.decide(pod: shuffled) else {
            Issue.record("not taken out")
            return
        }
        #expect(try apply(back, to: shuffled)["spec"]?["containers"] == .array([helper, ["name": "app"]]))
    }

    /// What uninject makes of an injected pod that was changed in between, and what it says.
    private func back(
        _ before: JSON, changed change: [PatchOperation]
    ) throws -> (injected: JSON, pod: JSON, warnings: [String]) {
        guard case .injected(let patch, _) = injector.decide(pod: before, namespace: nil) else {
            Issue.record("not injected")
            return (before, before, [])
        }
        let injected = try apply(patch, to: before)
        let changed = try apply(change, to: injected)
        guard case .removed(let back, let warnings) = Uninjector.decide(pod: changed) else {
            Issue.record("not taken out")
            return (injected, changed, [])
        }
        return (injected, try apply(back, to: changed), warnings)
    }

    @Test("Where the container alone was taken out, inject makes of the pod what it makes of a clean one")
    func containerTakenOut() throws {
        let asked = [
            "ferrite.io/sidecar-inject": "true", "ferrite.io/sidecar-native": "false",
            "ferrite.io/sidecar-env-override": "true",
        ]
        let known: JSON = ["name": "REDIS_URL", "valueFrom": ["secretKeyRef": ["key": "url", "name": "redis"]]]
        let before = pod(asked, ["containers": [["name": "app"], ["name": "other", "env": [known]]]])
        let (injected, _, _) = try back(before, changed: [])
        let without = try apply([.remove(["spec", "containers", "2"])], to: injected)
        let (again, after, warnings) = try back(without, changed: [])
        #expect(again == injected && after == before && warnings.isEmpty)

        // A status by which nothing can be taken back is no reason to refuse the pod.
        let odd = #"{"envName":"REDIS_URL","replaced":{},"resources":{},"version":"0.1.0"}"#
        let forged = try apply(
            [.add(["metadata", "annotations", "ferrite.io/sidecar-status"], .string(odd))], to: before)
        #expect(try back(forged, changed: []).injected["spec"] == injected["spec"])
    }

    @Test("A container that was renamed gets its variable back where it can be told, and else nothing is lost")
    func renamed() throws {
        let asked = ["ferrite.io/sidecar-inject": "true", "ferrite.io/sidecar-env-override": "true"]
        let reference: JSON = ["name": "REDIS_URL", "valueFrom": ["secretKeyRef": ["key": "url", "name": "redis"]]]
        let literal: JSON = ["name": "REDIS_URL", "value": "redis://:s3cret@redis/2"]
        let first: JSONPointer = ["spec", "containers", "0"]
        let status: JSONPointer = ["metadata", "annotations", "ferrite.io/sidecar-status"]
        let one = pod(
            asked, ["containers": [["name": "app", "env": [reference]], ["name": "own", "env": [literal]]]])
        let told = try back(one, changed: [.replace(first / "name", "web")])
        #expect(told.warnings.isEmpty && told.pod.at(status) == nil)
        #expect(told.pod.at(first) == ["name": "web", "env": [reference]])

        let two = pod(
            asked, ["containers": [["name": "app", "env": [reference]], ["name": "own", "env": [reference]]]])
        let unknown = try back(
            two, changed: [.replace(first / "name", "web"), .replace(["spec", "containers", "1", "name"], "more")])
        #expect(unknown.warnings.count == 2)
        #expect(unknown.warnings[0].contains(#"app"#) && unknown.warnings[0].contains("secretKeyRef"))
        let left = try #require(unknown.pod.at(status)?.string.flatMap(InjectionStatus.init(text:)))
        #expect(left.replaced == ["app": reference, "own": reference] && left.annotations.isEmpty)
        // Another inject keeps it too.
        let again = try back(unknown.pod, changed: []).injected
        let kept = try #require(again.at(status)?.string.flatMap(InjectionStatus.init(text:)))
        #expect(kept.replaced == left.replaced && kept.annotations.count == 3)

        let gone = try back(one, changed: [.remove(["spec", "containers", "1"])])
        #expect(gone.warnings.count == 1 && gone.warnings[0].contains("own") && !gone.warnings[0].contains("s3cret"))
        #expect(gone.pod.at(status)?.string?.contains("s3cret") == true)
        let given = try back(
            pod(asked, ["containers": [["name": "app"], ["name": "own"]]]),
            changed: [.remove(["spec", "containers", "1"])])
        #expect(given.warnings.isEmpty && given.pod.at(status) == nil)
    }

    @Test("A port that only root may have is told of, whichever it is", arguments: ["port", "metrics-port"])
    func privileged(_ suffix: String) {
        let asked = ["ferrite.io/sidecar-inject": "true", "ferrite.io/sidecar-\(suffix)": "80"]
        guard case .injected(_, let warnings) = injector.decide(pod: pod(asked), namespace: nil) else {
            Issue.record("not injected")
            return
        }
        #expect(warnings.count == 1 && warnings[0].contains("sidecar-\(suffix),"))
    }

    @Test("What has been changed since inject added it stays, and is told")
    func changedSince() throws {
        let mine: JSON = ["name": "REDIS_URL", "value": "redis://mine:6379"]
        let env: JSONPointer = ["spec", "containers", "0", "env"]
        let edited = try back(
            pod(),
            changed: [
                .replace(env / 0 / "value", "redis://mine:6379"),
                .replace(["metadata", "annotations", "prometheus.io/port"], "8080"),
            ])
        #expect(edited.pod["spec"]?["containers"] == [["name": "app", "env": [mine]]])
        #expect(
            edited.pod["metadata"]?["annotations"]
                == ["ferrite.io/sidecar-inject": "true", "prometheus.io/port": "8080"])
        #expect(
            edited.warnings == [
                "container app: its REDIS_URL has been changed since, and is left",
                "the annotation prometheus.io/port has been changed since, and is left",
            ])

        let appended = try back(pod(), changed: [.add(env / "-", mine)])
        #expect(appended.pod["spec"]?["containers"] == [["name": "app", "env": [mine]]] && appended.warnings.isEmpty)

        let asked = ["ferrite.io/sidecar-inject": "true", "ferrite.io/sidecar-env-override": "true"]
        let replaced = try back(
            pod(asked, ["containers": [["name": "app", "env": [["name": "REDIS_URL", "value": "redis://old/1"]]]]]),
            changed: [.replace(env / 0 / "value", "redis://mine:6379")])
        #expect(
            replaced.pod["spec"]?["containers"] == [["name": "app", "env": [mine]]] && replaced.warnings.count == 1)
    }

    @Test("Of the pod's own resources what has been changed since stays, and is told")
    func changedResources() throws {
        let limits: JSON = ["limits": ["cpu": "2", "memory": "1Gi"]]
        let before = pod(["ferrite.io/sidecar-inject": "true"], ["containers": [["name": "app"]], "resources": limits])
        let cpu = try back(before, changed: [.replace(["spec", "resources", "limits", "cpu"], "4")])
        #expect(cpu.injected["spec"]?["resources"]?["limits"]?["cpu"] == "2500m")
        #expect(cpu.pod["spec"]?["resources"] == ["limits": ["cpu": "4", "memory": "1Gi"]])
        #expect(cpu.warnings == ["the pod's own resources.limits.cpu has been changed since, and is left"])
        let more = try back(before, changed: [.add(["spec", "resources", "limits", "hugepages-2Mi"], "2Mi")])
        #expect(
            more.pod["spec"]?["resources"] == ["limits": ["cpu": "2", "memory": "1Gi", "hugepages-2Mi": "2Mi"]]
                && more.warnings.isEmpty)
    }

    @Test("A status from before values were kept is enough")
    func oldStatus() throws {
        let old =
            #"{"annotations":["prometheus.io/port"],"env":["app"],"envName":"REDIS_URL","replaced":{},"version":"0.1.0"}"#
        let (_, pod, warnings) = try back(
            pod(), changed: [.replace(["metadata", "annotations", "ferrite.io/sidecar-status"], .string(old))])
        #expect(pod["spec"] == ["containers": [["name": "app"]]] && warnings.isEmpty)
        #expect(pod["metadata"]?["annotations"]?["prometheus.io/port"] == nil)
    }

    @Test("Init containers that start behind a native sidecar are told of it, others are not")
    func initContainers() throws {
        let start: JSON = [
            ["name": "istio-proxy", "restartPolicy": "Always"], ["name": "migrate"],
            ["name": "own", "env": [["name": "REDIS_URL", "value": "redis://mine"]]],
            ["name": "linkerd-init"], ["name": "helper", "restartPolicy": "Always"],
        ]
        func told(_ native: String) throws -> ([String?], [String]) {
            let asked = ["ferrite.io/sidecar-inject": "true", "ferrite.io/sidecar-native": native]
            let before = pod(asked, ["containers": [["name": "app"]], "initContainers": start])
            guard case .injected(let patch, let warnings) = injector.decide(pod: before, namespace: nil) else {
                return ([], [])
            }
            let containers = try apply(patch, to: before)["spec"]?["initContainers"]?.elements ?? []
            return (containers.map { $0["env"]?.elements.first?["value"]?.string }, warnings)
        }
        let url = "redis://127.0.0.1:6379"
        let native = try told("true")
        #expect(native.0 == [nil, nil, url, "redis://mine", nil, url])
        #expect(native.1.count == 1 && native.1[0].hasPrefix("init container own has a REDIS_URL of its own"))
        #expect(try told("false") == ([nil, nil, "redis://mine", nil, nil], []))
    }

    @Test("A URL that is replaced leaves its database and its query, and no credentials")
    func urls() {
        let replaced: [(String, String?)] = [
            ("redis://redis:6379/2?socket_timeout=1", "/2?socket_timeout=1"), ("redis://redis", ""),
            ("REDIS://redis:6379/", "/"), ("rediss://r:1/3?ssl_cert_reqs=none&a=b&TLS=1", "/3?a=b"),
            ("valkey://a,b:2?db=4#f", "?db=4"), ("redis://$(HOST):$(PORT)/$(DB)", "/$(DB)"),
            ("redis:6379", nil), ("unix:///run/redis.sock?db=2", nil), ("redis://:s3/cret@redis:6379/2", nil),
            ("redis://u:p?x@h:6379/2", nil), ("redis://u:p#x@h:6379/2", nil), ("$(OTHER)", nil), ("", nil),
        ]
        for (url, kept) in replaced {
            let wanted = kept.map { "redis://127.0.0.1:6380" + $0 }
            let made = SidecarURL(port: 6380, replacing: url)
            #expect(made?.text == wanted && made?.dropsCredentials != true, "\(url)")
        }
        for url in ["redis://user:s3cret@r:6379/2?a=b", "redis://:s3cret@r/2?a=b", "redis://r/2?a=b&password=s3@cret"] {
            let made = SidecarURL(port: 6379, replacing: url)
            #expect(made?.text == "redis://127.0.0.1:6379/2?a=b" && made?.dropsCredentials == true, "\(url)")
        }
    }

    @Test("What is not taken over of a replaced variable is told")
    func replacedVariables() {
        func warnings(_ variable: JSON, _ more: [String: String] = [:]) -> [String] {
            let asked = ["ferrite.io/sidecar-inject": "true", "ferrite.io/sidecar-env-override": "true"]
            let spec: JSON = ["containers": [["name": "app", "env": [variable]]]]
            let decision = injector.decide(pod: pod(asked.merging(more) { $1 }, spec), namespace: nil)
            guard case .injected(_, let warnings) = decision else { return [decision.name] }
            return warnings
        }
        func literal(_ url: String) -> JSON { ["name": "REDIS_URL", "value": .string(url)] }
        #expect(warnings(literal("redis://redis/2")) == [] && warnings(literal("")) == [])
        let elsewhere = warnings(["name": "REDIS_URL", "valueFrom": ["secretKeyRef": ["name": "s", "key": "k"]]])
        #expect(elsewhere.count == 1 && elsewhere[0].contains("valueFrom"))
        #expect(warnings(literal("redis:6379")).count == 1)
        #expect(warnings(["name": "REDIS_URL", "value": "redis://redis/2", "valueFrom": .null]) == [])
        let secret = warnings(literal("redis://u:s3cret@redis"))
        #expect(secret.count == 1 && secret[0].contains("password-secret") && !secret[0].contains("s3cret"))
        #expect(warnings(literal("redis://u:s3cret@redis"), ["ferrite.io/sidecar-password-secret": "s"]) == [])
    }

    @Test("What a real API server has sent is injected, once", arguments: Fixtures.reviews)
    func recorded(_ name: String) throws {
        let request = try #require(try Fixtures.json("Admission/" + name)["request"])
        let pod = try #require(request["object"])
        guard case .injected(let patch, _) = injector.decide(pod: pod, namespace: request["namespace"]?.string) else {
            Issue.record("not injected")
            return
        }
        #expect(injector.decide(pod: try apply(patch, to: pod), namespace: nil) == .skipped(.alreadyInjected))
    }

    @Test("Why a pod gets none has a name")
    func skipped() {
        let asked = ["ferrite.io/sidecar-inject": "true"]
        let app: JSON = ["name": "app"]
        let reasons: [(JSON, String?, Decision.Reason)] = [
            (pod([:]), nil, .notRequested), ([:], nil, .notRequested),
            (["metadata": ["annotations": .null]], nil, .notRequested),
            (pod(["ferrite.io/sidecar-inject": "false"]), nil, .optedOut),
            (pod(["ferrite.dev/sidecar-inject": "false"]), nil, .optedOut),
            (pod(), "kube-system", .systemNamespace),
            (pod(asked, ["hostNetwork": true, "containers": [app]]), nil, .hostNetwork),
            (pod(asked, ["os": ["name": "windows"], "containers": [app]]), nil, .windows),
            (pod(asked, ["nodeSelector": ["kubernetes.io/os": "windows"], "containers": [app]]), nil, .windows),
            (pod(asked, ["nodeSelector": ["beta.kubernetes.io/os": "windows"], "containers": [app]]), nil, .windows),
            (pod(asked, ["containers": .null]), nil, .noContainers), (pod(asked, "none"), nil, .noContainers),
            (pod(asked, ["containers": [app, ["name": "ferrite-sidecar"]]]), nil, .alreadyInjected),
        ]
        for (pod, namespace, reason) in reasons {
            #expect(injector.decide(pod: pod, namespace: namespace) == .skipped(reason))
        }
    }

    @Test("A pod whose affinity keeps it from every Linux node gets none")
    func affinity() {
        func decision(_ terms: [[(String, String, [JSON])]]) -> String {
            let selector = terms.map { expressions -> JSON in
                let all = expressions.map { key, operation, values -> JSON in
                    ["key": .string(key), "operator": .string(operation), "values": .array(values)]
                }
                return ["matchExpressions": .array(all)]
            }
            let required: JSON = ["nodeSelectorTerms": .array(selector)]
            let spec: JSON = [
                "containers": [["name": "app"]],
                "affinity": ["nodeAffinity": ["requiredDuringSchedulingIgnoredDuringExecution": required]],
            ]
            return injector.decide(pod: pod(["ferrite.io/sidecar-inject": "true"], spec), namespace: nil).name
        }
        let system = "kubernetes.io/os"
        let isWindows = (system, "In", ["windows"] as [JSON])
        let isARM = ("kubernetes.io/arch", "In", ["arm64"] as [JSON])
        #expect(decision([[isWindows]]) == "windows")
        #expect(decision([[isARM, isWindows], [("beta.kubernetes.io/os", "NotIn", ["linux"])]]) == "windows")
        #expect(decision([]) == "injected")
        #expect(decision([[isWindows], [isARM]]) == "injected")
        #expect(decision([[(system, "In", ["windows", "linux"])]]) == "injected")
        #expect(decision([[(system, "NotIn", ["windows"])]]) == "injected")
        #expect(decision([[(system, "Exists", [])]]) == "injected")
    }

    @Test("A limit of the pod as a whole is its request only where no container has one, as the API server has it")
    func podLevelRequests() throws {
        /// What ours requests of CPU, and what the pod as a whole does after its defaulting.
        func cpu(_ limits: JSON, _ containers: JSON, start: JSON = []) throws -> (ours: String?, guaranteed: Bool) {
            let before = pod(
                ["ferrite.io/sidecar-inject": "true"],
                ["resources": ["limits": limits], "containers": containers, "initContainers": start])
            guard case .injected(let patch, _) = injector.decide(pod: before, namespace: nil) else {
                return (nil, false)
            }
            let ours = try apply(patch, to: before)["spec"]?["initContainers"]?.elements[0]["resources"]
            return (ours?["requests"]?["cpu"]?.string, ours?["limits"]?["cpu"] != nil)
        }
        func app(_ requests: JSON) -> JSON { ["name": "app", "resources": ["requests": requests]] }
        let limits: JSON = ["cpu": "1", "memory": "1Gi"]
        #expect(try cpu(limits, [app([:])]) == ("500m", true))
        #expect(try cpu(limits, [app(["cpu": "100m"])]) == ("100m", false))
        #expect(try cpu(limits, [app([:])], start: [app(["memory": "1Mi"])]) == ("100m", false))
        #expect(try cpu(limits, [app(["cpu": "600m"]), app(["cpu": "400m"])]) == ("500m", true))
        let sidecar: JSON = ["name": "s", "restartPolicy": "Always", "resources": ["limits": ["cpu": "400m"]]]
        #expect(try cpu(limits, [app([:])], start: [sidecar, app(["cpu": "600m"])]) == ("500m", true))
        #expect(try cpu(limits, [app(["cpu": "600m"])], start: [sidecar]) == ("500m", true))
        #expect(try cpu(limits, [app(["cpu": "600m"])], start: [app(["cpu": "400m"])]) == ("100m", false))
    }

    @Test("A value that is no good is denied in a sentence that names the annotation and a good one")
    func denied() {
        let bad: [(String, [String])] = [
            ("memory", ["", "12", "47Mi", "128", "128m", "128MB", "-1Gi", "64Gib", "2Ti", "1e99"]),
            (
                "upstream",
                [
                    "", "redis", "redis:", ":6379", "redis:0", "redis:65536", "a b:1", "[::1]", "redis://r:1",
                    "r:6379 --x", "[....]:1", "[1:2]:1", "rediss://", "rediss://r", "rediss://u@r:1", "REDISS://r:1",
                    "-x:6379", "h..x:1", "a-:1", "a.-b:1", ".:1", "h..:1", "999.1.1.1:6379", "127.1:6379", "1:1",
                    "0x7f000001:1", "10.0.0.01:1", "1.2.3.4.:1", "é:1", String(repeating: "l", count: 64) + ":1",
                ]
            ),
            ("mode", ["", "write", "Read-Through"]), ("eviction", ["lru,lfu", "none"]),
            ("ttl", ["", "0", "5 weeks", "-1s", "1.2345s", ".5s", "5.", "1000000h"]),
            ("prefetch", ["", " , ", "a\nb"]),
            ("username", ["", "a b"]), ("password-secret", ["", "/", "a/b/c", "A/b", "s/", "-s/k", "s/.", "s/..k"]),
            ("password-secret", ["a..b", "a.-b", "a-", "a./k", "s/k k", "s/ü", "a_b"]),
            ("tls-ca-secret", ["", "/ca.crt", "A", "s/.."]), ("tls-secret", ["", "s/k", "S", "a..b"]),
            ("tls-server-name", ["", "a b", "a:b/c", ".a", "-a", "a..b", "1.2.3"]),
            ("cpu-request", ["", "0", "x"]), ("cpu-limit", ["1m", "x"]),
            ("image", ["", "a b", "a\u{0}b", "-x", "UPPER:x", "a:b:c", "a//b", "a/", "a:", "r.io/B", "a@b"]),
            (
                "image",
                ["a@:", "repo:-x", "x:" + String(repeating: "t", count: 129), "x@sha256:zz", "x:.a", "a..b", "a.-b"]
            ),
            ("image", ["a___b", "a_", ".a", "r..io/a", "-r.io/a", "r.io:/a", "r.io:x/a", "[::1/a", "[]/a", "LOCAL/x"]),
            (
                "image",
                ["x@sha256:" + String(repeating: "A", count: 64), "x@sha512:" + String(repeating: "a", count: 64)]
            ),
            ("image", [String(repeating: "a", count: 256), "a@sha256:" + String(repeating: "a", count: 65)]),
            ("port", ["", "0", "65536", "+1", "6379a", "٣"]), ("metrics-port", ["-1"]), ("log-level", ["loud"]),
            ("seccomp", ["", "/etc/x", "../x", "a//b"]), ("env", ["", "1A", "A-B", "A=B"]), ("env-override", ["yes"]),
            ("native", ["", "True"]), ("inject", ["yes", ""]),
        ]
        for (suffix, values) in bad {
            for value in values {
                let name = "ferrite.io/sidecar-" + suffix
                var annotations = ["ferrite.io/sidecar-inject": "true"]
                annotations[name] = value
                if suffix.hasPrefix("tls-") { annotations["ferrite.io/sidecar-upstream"] = "rediss://r:1" }
                if suffix == "username" { annotations["ferrite.io/sidecar-password-secret"] = "s" }
                guard
                    case .denied(.badAnnotation, let sentences) = injector.decide(pod: pod(annotations), namespace: nil)
                else {
                    Issue.record("\(suffix): \"\(value)\" is taken")
                    continue
                }
                #expect(
                    sentences.count == 1 && sentences[0].hasPrefix(name) && sentences[0].contains("use "),
                    "\(sentences)")
            }
        }
    }

    @Test("The examples that are shown are taken", arguments: SidecarAnnotation.all.map(\.suffix))
    func examples(_ suffix: String) throws {
        let annotation = try #require(SidecarAnnotation.named(suffix))
        let quoted = annotation.expected.split(separator: "\"", omittingEmptySubsequences: false).enumerated()
        for (place, value) in quoted where place % 2 == 1 {
            var request = SidecarRequest(defaults: InjectionDefaults())
            #expect(annotation.apply(String(value), &request), "\(suffix): \(value)")
        }
    }

    @Test("By its grammar a good image, host or Secret is taken")
    func forms() throws {
        let digest = "sha256:" + String(repeating: "0f", count: 32)
        let good: [String: [String]] = [
            "image": [
                "x", "a/b:1", "a__b/c--d.e_f", "r.io/a", "R.io/a:_1.x-Y", "localhost/a", "localhost:5000/a",
                "r:5000/a@\(digest)",
                "[::1]:5000/x:1", "[fd00::1]/x", "r-1.io/a:1@\(digest)", "x:" + String(repeating: "t", count: 128),
            ],
            "upstream": [
                "redis:1", "a.b.svc.cluster.local.:6379", "_a._b-c:1", "10.0.0.1:1", "1a.2b:1", "a.1b:1", "a1.:1",
                String(repeating: "l", count: 63) + ":1",
            ],
            "password-secret": ["a", "a.b-c.d/k", "1.2/_.-K", "a/.k", String(repeating: "a", count: 253)],
        ]
        for (suffix, values) in good {
            for value in values {
                var request = SidecarRequest(defaults: InjectionDefaults())
                #expect(SidecarAnnotation.named(suffix)?.apply(value, &request) == true, "\(suffix): \(value)")
            }
        }
    }

    @Test("All that is wrong is said at once; what clashes, and what would never end, is denied")
    func deniedTogether() {
        let asked = ["ferrite.io/sidecar-inject": "true"]
        func sentences(_ more: [String: String], _ spec: JSON? = nil) -> (String, [String]) {
            let decision = injector.decide(
                pod: pod(asked.merging(more) { $1 }, spec ?? ["containers": [["name": "app"]]]), namespace: nil)
            guard case .denied(_, let sentences) = decision else { return (decision.name, []) }
            return (decision.name, sentences)
        }
        #expect(
            sentences([
                "ferrite.io/sidecar-mode": "x", "ferrite.io/sidecar-ttl": "x", "ferrite.io/sidecar-memmory": "1Gi",
            ]).1.count == 3)
        #expect(
            sentences(["ferrite.dev/sidecar-mode": "write-through", "ferrite.io/sidecar-mode": "read-through"]).0
                == "bad-annotation")
        #expect(sentences(["ferrite.io/sidecar-metrics-port": "6379"]).0 == "bad-annotation")
        #expect(sentences(["ferrite.io/sidecar-username": "u"]).0 == "bad-annotation")
        #expect(
            sentences(["ferrite.io/sidecar-cpu-request": "2", "ferrite.io/sidecar-cpu-limit": "1"]).0
                == "bad-annotation")
        let redis: JSON = ["containers": [["name": "redis", "ports": [["containerPort": 6379]]]]]
        let clash = sentences([:], redis)
        #expect(
            clash.0 == "port-clash" && clash.1[0].contains("container redis") && clash.1[0].contains("sidecar-port"))
        #expect(sentences(["ferrite.io/sidecar-port": "6380"], redis).0 == "injected")
        let udp: JSON = ["containers": [["name": "dns", "ports": [["containerPort": 6379, "protocol": "UDP"]]]]]
        #expect(sentences([:], udp).0 == "injected")
        #expect(
            sentences(
                ["ferrite.io/sidecar-metrics-port": "9200"],
                ["containers": [["name": "a", "ports": [["containerPort": 9200]]]]]
            ).0 == "port-clash")
        let volume: JSON = ["containers": [["name": "app"]], "volumes": [["name": "ferrite-sidecar-tls"]]]
        let byTLS = ["ferrite.io/sidecar-upstream": "rediss://r:1", "ferrite.io/sidecar-tls-secret": "s"]
        #expect(sentences(byTLS, volume).0 == "volume-clash")
        #expect(sentences([:], volume).0 == "injected")
        #expect(sentences(["ferrite.io/sidecar-tls-secret": "s"]).0 == "bad-annotation")
        let password = sentences(["ferrite.io/sidecar-upstream": "rediss://u:s3cret@h:1"]).1
        #expect(password.count == 1 && !password[0].contains("s3cret") && password[0].contains("password-secret"))
        for upstream in [
            "localhost:6379", "LOCALHOST:6379", "127.0.0.1:6379", "[::1]:6379", "0.0.0.0:6379",
            "rediss://localhost:6379", "localhost.:6379", "127.0.0.1:06379", "[0:0::1]:6379", "[::ffff:127.0.0.1]:6379",
            "[::]:6379", "[::FFFF:0:0]:6379",
        ] {
            let told = sentences(["ferrite.io/sidecar-upstream": upstream]).1
            #expect(told.count == 1 && told[0].contains("the sidecar itself"), "\(upstream): \(told)")
        }
        for upstream in ["localhost:6380", "127.0.0.2:6379", "[::2]:6379", "[1::1]:6379", "localhost.example:6379"] {
            #expect(sentences(["ferrite.io/sidecar-upstream": upstream]).0 == "injected", "\(upstream)")
        }
        let probed: JSON = ["containers": [["name": "a", "readinessProbe": ["tcpSocket": ["port": 6379]]]]]
        #expect(sentences([:], probed).0 == "port-clash")
        let never: JSON = ["restartPolicy": "OnFailure", "containers": [["name": "app"]]]
        #expect(sentences(["ferrite.io/sidecar-native": "false"], never).0 == "would-never-end")
        #expect(sentences([:], never).0 == "injected")
        let unquoted: JSON = [
            "metadata": ["annotations": ["ferrite.io/sidecar-inject": true]], "spec": ["containers": [["name": "a"]]],
        ]
        #expect(injector.decide(pod: unquoted, namespace: nil).name == "bad-annotation")
    }
}
