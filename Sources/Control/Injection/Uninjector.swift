/// Takes away what `Injector` has added, by the status that it left: a pure function from a pod to a patch.
enum Uninjector {
    enum Outcome: Equatable {
        case removed([PatchOperation])
        case nothing(String)
    }

    static func decide(pod: JSON) -> Outcome {
        guard let text = pod["metadata"]?["annotations"]?[SidecarAnnotation.statusName]?.string else {
            return .nothing("there is no annotation \(SidecarAnnotation.statusName)")
        }
        guard let status = InjectionStatus(text: text) else {
            return .nothing("\(SidecarAnnotation.statusName) is not what inject writes")
        }
        // The variables first: the containers' places are those of the pod as it is.
        let patch =
            environment(pod, status) + ours(pod, status)
            + (status.resources.map { [.replace(["spec", "resources"], $0)] } ?? [])
            + (status.annotations + [SidecarAnnotation.statusName]).filter {
                pod["metadata"]?["annotations"]?[$0] != nil
            }.map {
                .remove(["metadata", "annotations"] / $0)
            }
        return .removed(patch)
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

    private static func environment(_ pod: JSON, _ status: InjectionStatus) -> [PatchOperation] {
        var patch: [PatchOperation] = []
        for (index, container) in (pod["spec"]?["containers"]?.elements ?? []).enumerated() {
            guard let name = container["name"]?.string, name != SidecarContainer.name else { continue }
            let variables = container["env"]?.elements ?? []
            guard let known = variables.lastIndex(where: { $0["name"]?.string == status.envName }) else { continue }
            let place: JSONPointer = ["spec", "containers"] / index / "env"
            if let before = status.replaced[name] {
                patch.append(.replace(place / known, before))
            } else if status.env.contains(name) {
                patch.append(variables.count == 1 ? empty(place, as: name + "/env", status) : .remove(place / known))
            }
        }
        return patch
    }

    /// A list that has lost its last element is as it was before it got the first: gone, or there with nothing in it.
    private static func empty(_ place: JSONPointer, as name: String, _ status: InjectionStatus) -> PatchOperation {
        (status.empty?[name]).map { .replace(place, $0) } ?? .remove(place)
    }
}
