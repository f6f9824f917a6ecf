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
        var patch = environment(pod, status, &warnings)
        let lost = patch.lost
        patch.operations += ours(pod, status) + resources(pod, status, &warnings) + annotations(pod, status, &warnings)
        let place: JSONPointer = ["metadata", "annotations", SidecarAnnotation.statusName]
        patch.operations.append(lost.isEmpty ? .remove(place) : .replace(place, .string(status.only(lost).jsonLine)))
        return .removed(patch.operations, warnings: warnings)
    }

    /// Those that inject adds, and no others: the status may be anybody's text.
    private static func annotations(
        _ pod: JSON, _ status: InjectionStatus, _ warnings: inout [String]
    ) -> [PatchOperation] {
        Injector.scrapeNames.filter(status.annotations.contains).compactMap { name in
            guard let value = pod["metadata"]?["annotations"]?[name] else { return nil }
            if let given = status.values?[name], value != .string(given) {
                warnings.append("the annotation \(name) has been changed since, and is left")
                return nil
            }
            return .remove(["metadata", "annotations"] / name)
        }
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
            if ours.count == 1 { return [.remove(["spec", list] / ours[0])] }
            // Removing them one by one would take time by the square of their number.
            return [.replace(["spec", list], .array(all.filter { $0["name"]?.string != name }))]
        }
    }

    /// A container, where it is in the pod, and what it is called in a sentence.
    private struct Place {
        var container: JSON
        var env: JSONPointer
        var who: String
    }

    /// - Returns: what gives the containers their variables back, and the containers of the status to which it cannot.
    private static func environment(
        _ pod: JSON, _ status: InjectionStatus, _ warnings: inout [String]
    ) -> (operations: [PatchOperation], lost: Set<String>) {
        var patch: [PatchOperation] = []
        let known = Set(status.env).union(status.replaced.keys)
        var missing = known
        // Containers that the status does not name, by the variable's value: one of ours may have got another name.
        var others: [String: [Place]] = [:]
        for list in ["containers", "initContainers"] {
            for (index, container) in (pod["spec"]?[list]?.elements ?? []).enumerated() {
                guard let name = container["name"]?.string, name != SidecarContainer.name else { continue }
                let place = Place(
                    container: container, env: ["spec", list] / index / "env",
                    who: (list == "containers" ? "container " : "init container ") + name)
                if known.contains(name) {
                    missing.remove(name)
                    patch += restore(place, as: name, status, &warnings)
                } else {
                    let variables = (container["env"]?.elements ?? []).filter { $0["name"]?.string == status.envName }
                    for value in Set(variables.compactMap { $0["value"]?.string }) {
                        others[value, default: []].append(place)
                    }
                }
            }
        }
        var lost: Set<String> = []
        let alike = Dictionary(grouping: missing) { status.values?[$0 + "/env"] }
        for name in missing.sorted() {
            let value = status.values?[name + "/env"]
            let holders = value.flatMap { others[$0] } ?? []
            if holders.count == 1, alike[value]?.count == 1 {
                patch += restore(holders[0], as: name, status, &warnings)
            } else if let before = status.replaced[name] {
                lost.insert(name)
                // A literal value may have a password in it, a reference has none.
                let reference = before["valueFrom"].flatMap { $0.object == nil ? nil : "valueFrom " + $0.jsonLine }
                warnings.append(
                    "there is no container \(name) any more, to which its \(status.envName) would come back: it was "
                        + "\(reference ?? "a literal value"), and \(SidecarAnnotation.statusName) is left, which has it"
                )
            } else if !holders.isEmpty {
                lost.insert(name)
                warnings.append(
                    "there is no container \(name) any more, and which one has its \(status.envName) now is not known: it "
                        + "is left, and so is \(SidecarAnnotation.statusName)")
            }
        }
        return (patch, lost)
    }

    /// Gives a container its variable back, by what the status has under a name.
    private static func restore(
        _ place: Place, as name: String, _ status: InjectionStatus, _ warnings: inout [String]
    ) -> [PatchOperation] {
        let before = status.replaced[name]
        let variables = place.container["env"]?.elements ?? []
        let named = variables.indices.filter { variables[$0]["name"]?.string == status.envName }
        let given = status.values?[name + "/env"]
        let ours = named.filter { given == nil || variables[$0]["value"]?.string == given }
        // One that was given stands in front of others, one that was replaced was the last.
        guard let known = before == nil ? ours.first : ours.last else {
            if !named.isEmpty {
                warnings.append("\(place.who): its \(status.envName) has been changed since, and is left")
            }
            return []
        }
        if let before { return [.replace(place.env / known, before)] }
        return [variables.count == 1 ? empty(place.env, as: name + "/env", status) : .remove(place.env / known)]
    }

    /// A list that has lost its last element is as it was before it got the first: gone, or there with nothing in it.
    private static func empty(_ place: JSONPointer, as name: String, _ status: InjectionStatus) -> PatchOperation {
        (status.empty?[name]).map { .replace(place, $0) } ?? .remove(place)
    }
}
