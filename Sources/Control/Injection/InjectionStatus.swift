import Foundation
import OrderedCollections

/// What was done to a pod, kept in its annotation so that it can be undone.
struct InjectionStatus: Encodable, Equatable, Sendable {
    var version = Version.current
    var envName = ""
    /// Containers that were given the variable.
    var env: [String] = []
    /// Variables that were replaced, by container.
    var replaced: [String: JSON] = [:]
    /// Other annotations that were added.
    var annotations: [String] = []
    /// What was put there, by annotation, `CONTAINER/env`, or place in the pod's own resources: what is another by now
    /// is somebody else's. nil in what was written before this was kept.
    var values: [String: String]?
    /// Whether the volume was added.
    var volume: Bool?
    /// The pod's own resources, before they have grown.
    var resources: JSON?
    /// Lists that were there with nothing in them ([] or null), by `initContainers`, `volumes` or `CONTAINER/env`.
    var empty: [String: JSON]?

    /// Keeps what a list was before it gets its first element.
    mutating func note(empty list: JSON?, as name: String) {
        guard let list else { return }
        if empty == nil { empty = [:] }
        empty?[name] = list
    }

    /// In place: a dictionary copied for each container takes time by the square of their number.
    mutating func note(value: String, as name: String) {
        if values == nil { values = [:] }
        values?[name] = value
    }

    /// Keeps what the pod's own resources become.
    mutating func note(resources: JSON?, changes: [PatchOperation]) {
        if changes.isEmpty { return }
        self.resources = resources
        for change in changes {
            for (kind, amount) in change.value?.object ?? [:] {
                note(value: amount.string ?? "", as: (change.path / kind).text)
            }
            if let amount = change.value?.string { note(value: amount, as: change.path.text) }
        }
    }

    /// What has to do with the variables of these containers, and nothing else.
    func only(_ names: Set<String>) -> InjectionStatus {
        let places = Set(names.map { $0 + "/env" })
        var rest = InjectionStatus()
        (rest.version, rest.envName) = (version, envName)
        rest.env = env.filter(names.contains)
        rest.replaced = replaced.filter { names.contains($0.key) }
        rest.values = values?.filter { places.contains($0.key) }
        rest.empty = empty?.filter { places.contains($0.key) }
        return rest
    }

    /// nil where the text is not one that was written here.
    init?(text: String) {
        guard let status = try? JSONReader.read(text.utf8), let version = status["version"]?.string,
            let envName = status["envName"]?.string
        else { return nil }
        self.version = version
        self.envName = envName
        env = status["env"]?.strings ?? []
        replaced = status["replaced"]?.members ?? [:]
        annotations = status["annotations"]?.strings ?? []
        values = status["values"]?.members?.compactMapValues(\.string)
        volume = status["volume"]?.bool
        resources = status["resources"]
        empty = status["empty"]?.members
    }

    init() {}
}

extension Encodable {
    /// JSON in one line, the same for the same value.
    var jsonLine: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return (try? encoder.encode(self)).map { String(decoding: $0, as: UTF8.self) } ?? "{}"
    }
}

extension JSON {
    fileprivate var strings: [String] { elements.compactMap(\.string) }
    fileprivate var members: [String: JSON]? {
        object.map { members in Dictionary(members.elements.map { ($0.key, $0.value) }) { $1 } }
    }
}
