import OrderedCollections

/// Where a manifest's objects hold pods: a Pod is one, a workload has a template, a List has objects.
enum PodTemplate {
    /// A pod within a document.
    struct Place: Equatable {
        /// "Deployment/my-app".
        var object: String
        /// nil: not said in the manifest.
        var namespace: String?
        /// Of the pod, in the document.
        var pointer: JSONPointer
        /// Annotations of a workload's own: a sidecar asked for there is asked for in the wrong place.
        var ownAnnotations: JSON?
    }

    /// Another's kinds may have such names too.
    private static let groups: [String: String] = [
        "Deployment": "apps/", "StatefulSet": "apps/", "DaemonSet": "apps/", "ReplicaSet": "apps/", "Job": "batch/",
        "CronJob": "batch/",
    ]

    private static let templates: [String: JSONPointer] = [
        "Pod": [],
        "Deployment": ["spec", "template"],
        "StatefulSet": ["spec", "template"],
        "DaemonSet": ["spec", "template"],
        "ReplicaSet": ["spec", "template"],
        "ReplicationController": ["spec", "template"],
        "Job": ["spec", "template"],
        "CronJob": ["spec", "jobTemplate", "spec", "template"],
        "PodTemplate": ["template"],
    ]

    /// The pods of a document, in its order. Items of a list of one kind need not say it.
    static func places(in object: JSON, at base: JSONPointer = [], of listed: JSON? = nil) -> [Place] {
        guard let kind = (object["kind"] ?? listed?["kind"])?.string else { return [] }
        if let items = items(of: object) {
            return items.enumerated().flatMap { places(in: $1, at: base / "items" / $0, of: item(of: object)) }
        }
        let version = (object["apiVersion"] ?? listed?["apiVersion"])?.string
        guard isKnown(kind, version), let template = templates[kind], object.at(template) != nil else { return [] }
        return [
            Place(
                object: name(of: object, kind), namespace: object["metadata"]?["namespace"]?.string,
                pointer: JSONPointer(base.parts + template.parts),
                ownAnnotations: template.parts.isEmpty ? nil : object["metadata"]?["annotations"])
        ]
    }

    /// Objects of kinds that are not known here, with a sidecar asked for somewhere in them.
    static func unknown(in object: JSON, of listed: JSON? = nil) -> [(object: String, kind: String)] {
        if let items = items(of: object) { return items.flatMap { unknown(in: $0, of: item(of: object)) } }
        let kind = (object["kind"] ?? listed?["kind"])?.string ?? "?"
        let version = (object["apiVersion"] ?? listed?["apiVersion"])?.string
        if isKnown(kind, version) || !asksForSidecar(object) { return [] }
        return [(name(of: object, kind), (version.map { $0 + " " } ?? "") + kind)]
    }

    private static func isKnown(_ kind: String, _ version: String?) -> Bool {
        guard templates[kind] != nil, let version else { return templates[kind] != nil }
        return groups[kind].map(version.hasPrefix) ?? !version.contains("/")
    }

    private static func items(of object: JSON) -> [JSON]? {
        guard let kind = object["kind"]?.string, kind.hasSuffix("List"), let items = object["items"] else { return nil }
        return items.elements
    }

    /// What each item is, if it does not say: a DeploymentList's is a Deployment.
    private static func item(of list: JSON) -> JSON {
        let kind = list["kind"]?.string?.dropLast("List".count) ?? ""
        return kind.isEmpty ? [:] : ["kind": .string(String(kind)), "apiVersion": list["apiVersion"] ?? .null]
    }

    private static func name(of object: JSON, _ kind: String) -> String {
        let metadata = object["metadata"]
        return "\(kind)/\(metadata?["name"]?.string ?? metadata?["generateName"]?.string ?? "?")"
    }

    private static func asksForSidecar(_ value: JSON) -> Bool {
        switch value {
        case .object(let members):
            AnnotationReader(annotations: members["annotations"]).isRequested == true
                || members.values.contains(where: asksForSidecar)
        case .array(let elements): elements.contains(where: asksForSidecar)
        default: false
        }
    }
}

extension JSON {
    /// What a pointer names; nil where there is nothing.
    func at(_ pointer: JSONPointer) -> JSON? {
        pointer.parts.reduce(self as JSON?) { value, part in
            if case .array(let elements)? = value {
                return Int(part).flatMap { elements.indices.contains($0) ? elements[$0] : nil }
            }
            return value?[part]
        }
    }
}
