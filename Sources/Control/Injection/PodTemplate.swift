import Yams

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

    /// The pods of a document, in its order.
    static func places(in object: JSON, at base: JSONPointer = []) -> [Place] {
        guard let kind = object["kind"]?.string else { return [] }
        if kind == "List" || kind.hasSuffix("List") && object["items"] != nil {
            return (object["items"]?.elements ?? []).enumerated().flatMap { index, item in
                places(in: item, at: base / "items" / index)
            }
        }
        guard let template = templates[kind], object.at(template) != nil else { return [] }
        let version = object["apiVersion"]?.string
        if let version, !(groups[kind].map(version.hasPrefix) ?? !version.contains("/")) { return [] }
        let metadata = object["metadata"]
        let name = metadata?["name"]?.string ?? metadata?["generateName"]?.string ?? "?"
        return [
            Place(
                object: "\(kind)/\(name)", namespace: metadata?["namespace"]?.string,
                pointer: JSONPointer(base.parts + template.parts),
                ownAnnotations: template.parts.isEmpty ? nil : metadata?["annotations"])
        ]
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
