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
    /// Whether the volume was added.
    var volume: Bool?
    /// The pod's own resources, before they have grown.
    var resources: JSON?
    /// Lists that were there with nothing in them ([] or null), by `initContainers`, `volumes` or `CONTAINER/env`.
    var empty: [String: JSON]?

    /// Keeps what a list was before it gets its first element.
    mutating func note(empty list: JSON?, as name: String) {
        if let list { empty = (empty ?? [:]).merging([name: list]) { $1 } }
    }

    /// JSON in one line, the same for the same status.
    var text: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return (try? encoder.encode(self)).map { String(decoding: $0, as: UTF8.self) } ?? "{}"
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
        volume = status["volume"]?.bool
        resources = status["resources"]
        empty = status["empty"]?.members
    }

    init() {}
}

extension JSON {
    fileprivate var strings: [String] { elements.compactMap(\.string) }
    fileprivate var members: [String: JSON]? {
        object.map { members in Dictionary(members.elements.map { ($0.key, $0.value) }) { $1 } }
    }
}
