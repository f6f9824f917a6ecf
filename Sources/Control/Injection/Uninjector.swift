import OrderedCollections

/// Takes away what `Injector` has added and nobody has changed, by the status that it left: a pure function from a pod
/// to a patch.
enum Uninjector {
    enum Outcome: Equatable {
        /// What has been changed since is left, with a sentence each.
        case removed([PatchOperation], warnings: [String])
        case nothing(String)
    }

    static func decide(pod: JSON) -> Outcome {
        guard let text = pod["metadata"]?["annotations"]?[SidecarAnnotation.statusName]?.string else {
            return .nothing("there is no annotation \(SidecarAnnotation.statusName)")
        }
        guard let status = InjectionStatus(text: text) else {
            return .nothing("\(SidecarAnnotation.statusName) is not what inject writes")
        }
        var warnings: [String] = []
        // The variables first: the containers' places are those of the pod as it is.
        let patch =
            environment(pod, status, &warnings) + ours(pod, status) + resources(pod, status, &warnings)
            + annotations(pod, status, &warnings)
        return .removed(patch, warnings: warnings)
    }

    private static func annotations(
        _ pod: JSON, _ status: InjectionStatus, _ warnings: inout [String]
    ) -> [PatchOperation] {
        var names = [SidecarAnnotation.statusName]
        for name in status.annotations {
            guard let value = pod["metadata"]?["annotations"]?[name] else { continue }
            if let given = status.values?[name], value != .string(given) {
                warnings.append("the annotation \(name) has been changed since, and is left")
            } else {
                names.insert(name, at: names.count - 1)
            }
        }
        return names.map { .remove(["metadata", "annotations"] / $0) }
    }

    /// Of the pod as a whole: amounts that are still as they were left go back to what they were.
    private static func resources(
        _ pod: JSON, _ status: InjectionStatus, _ warnings: inout [String]
    ) -> [PatchOperation] {
        guard let before = status.resources else { return [] }
        let whole: JSONPointer = ["spec", "resources"]
        guard let values = status.values else { return [.replace(whole, before)] }
        var patch: [PatchOperation] = []
        for part in ["requests", "limits"] {
            var changes: [PatchOperation] = []
            for kind in ["cpu", "memory"] {
                let place = whole / part / kind
                guard let given = values[place.text], let now = pod.at(place) else { continue }
                if now != .string(given) {
                    warnings.append("the pod's own resources.\(part).\(kind) has been changed since, and is left")
                } else {
                    changes.append(before[part]?[kind].map { .replace(place, $0) } ?? .remove(place))
                }
            }
            let isWhole = changes.count == pod.at(whole / part)?.object?.count
            if before[part]?.object == nil, isWhole {
                changes = [before[part].map { .replace(whole / part, $0) } ?? .remove(whole / part)]
            }
            patch += changes
        }
        return patch
    }

    private static func ours(_ pod: JSON, _ status: InjectionStatus) -> [PatchOperation] {
        let lists = [
            ("initContainers", SidecarContainer.name), ("containers", SidecarContainer.name),
            ("volumes", SidecarVolume.name),
        ]
        return lists.flatMap { list, name -> [PatchOperation] in
            if list == "volumes", status.volume != true { return [] }
            let all = pod["spec"]?[list]?.elements ?? []
            let ours = all.indices.filter { all[$0]["name"]?.string == name }
            if ours.isEmpty { return [] }
            if ours.count == all.count { return [empty(["spec", list], as: list, status)] }
            return ours.reversed().map { .remove(["spec", list] / $0) }
        }
    }

    private static func environment(
        _ pod: JSON, _ status: InjectionStatus, _ warnings: inout [String]
    ) -> [PatchOperation] {
        var patch: [PatchOperation] = []
        for list in ["containers", "initContainers"] {
            for (index, container) in (pod["spec"]?[list]?.elements ?? []).enumerated() {
                guard let name = container["name"]?.string, name != SidecarContainer.name else { continue }
                let before = status.replaced[name]
                guard before != nil || status.env.contains(name) else { continue }
                let who = (list == "containers" ? "container " : "init container ") + name
                let variables = container["env"]?.elements ?? []
                let named = variables.indices.filter { variables[$0]["name"]?.string == status.envName }
                let given = status.values?[name + "/env"]
                let ours = named.filter { given == nil || variables[$0]["value"]?.string == given }
                // One that was given stands in front of others, one that was replaced was the last.
                guard let known = before == nil ? ours.first : ours.last else {
                    if !named.isEmpty {
                        warnings.append("\(who): its \(status.envName) has been changed since, and is left")
                    }
                    continue
                }
                let place: JSONPointer = ["spec", list] / index / "env"
                if let before {
                    patch.append(.replace(place / known, before))
                } else {
                    patch.append(
                        variables.count == 1 ? empty(place, as: name + "/env", status) : .remove(place / known))
                }
            }
        }
        return patch
    }

    /// A list that has lost its last element is as it was before it got the first: gone, or there with nothing in it.
    private static func empty(_ place: JSONPointer, as name: String, _ status: InjectionStatus) -> PatchOperation {
        (status.empty?[name]).map { .replace(place, $0) } ?? .remove(place)
    }
}
