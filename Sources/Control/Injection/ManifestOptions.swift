import ArgumentParser
import Foundation
import Yams

/// Which manifests a command reads, and how it writes them.
struct ManifestOptions: ParsableArguments {
    @Option(
        name: [.customShort("f"), .customLong("filename")],
        help: ArgumentHelp(
            "A file, a folder (its .yaml, .yml and .json files), or - for standard input. May be given again.",
            valueName: "file"))
    var files: [String] = []

    @Option(name: .shortAndLong, help: ArgumentHelp("Write all as yaml or json (as each is).", valueName: "format"))
    var output: Format?

    @Option(name: .shortAndLong, help: ArgumentHelp("The namespace of objects that name none.", valueName: "namespace"))
    var namespace: String?

    @Flag(name: .shortAndLong, help: "Say nothing about what was done; mistakes are still told.")
    var quiet = false

    enum Format: String, ExpressibleByArgument, CaseIterable {
        case yaml, json
    }

    func validate() throws {
        if files.isEmpty { throw ValidationError("no manifests are named: give -f FILE, -f DIR or -f -") }
    }

    /// What becomes of one pod.
    struct Verdict {
        var name: String
        var patch: [PatchOperation]
        var sentences: [String]
        var isRefusal: Bool

        init(_ name: String, patch: [PatchOperation] = [], sentences: [String] = [], isRefusal: Bool = false) {
            (self.name, self.patch, self.sentences, self.isRefusal) = (name, patch, sentences, isRefusal)
        }
    }

    /// Asks about every pod, and writes all manifests with the patches applied; nothing if one cannot be, which ends with
    /// 65, or a file cannot be read, with 66.
    func rewrite(_ judge: (PodTemplate.Place, JSON) -> Verdict) throws {
        var documents: [ManifestStream.Document] = []
        var isRefused = false
        for file in try files.flatMap(Self.expand) {
            var stream: ManifestStream
            do {
                stream = try ManifestStream(try Self.read(file))
            } catch let error as ManifestStream.Malformed {
                try Self.fail("\(file):\(error.line): \(error.what)", code: 65)
            }
            for index in stream.documents.indices {
                isRefused = !(try rewrite(&stream.documents[index], of: file, judge)) || isRefused
            }
            documents += stream.documents
        }
        if isRefused { try Self.fail("nothing was written", code: 65) }
        FileHandle.standardOutput.write(Data(try text(of: documents).utf8))
    }

    /// False when a pod cannot be as it is wanted.
    private func rewrite(
        _ document: inout ManifestStream.Document, of file: String, _ judge: (PodTemplate.Place, JSON) -> Verdict
    ) throws -> Bool {
        guard var object = document.object else { return true }
        let meaning = JSON(object)
        var isChanged = false
        var isGood = true
        for (unknown, kind) in PodTemplate.unknown(in: meaning) {
            report(
                .init(
                    "unknown-kind",
                    sentences: [
                        "pods are not looked for in a \(kind): only the webhook sees them, when they are made"
                    ]),
                on: unknown, "\(file):\(document.line)")
        }
        for place in PodTemplate.places(in: meaning) {
            guard let pod = meaning.at(place.pointer) else { continue }
            let verdict = judge(place, pod)
            isGood = isGood && !verdict.isRefusal
            report(verdict, on: place.object, "\(file):\(document.line)")
            if verdict.patch.isEmpty { continue }
            do throws(Node.NoSuchPlace) {
                try object.apply(verdict.patch.map { $0.below(place.pointer) })
                isChanged = true
            } catch {
                report(
                    .init("error", sentences: ["there is no \(error.pointer.text)"], isRefusal: true), on: place.object,
                    file)
                isGood = false
            }
        }
        if let flaw = document.flaw, isChanged || output == .json {
            Self.say("\(file):\(flaw.line): \(flaw.what)")
            return false
        }
        if isChanged { try document.replace(object) }
        return isGood
    }

    private func report(_ verdict: Verdict, on object: String, _ place: String) {
        if quiet, !verdict.isRefusal { return }
        let why = verdict.sentences.joined(separator: "; ")
        Self.say("\(place): \(object): \(verdict.name)" + (why.isEmpty ? "" : ": " + why))
    }

    /// As each is, with lines of `---` where documents were in several files; or in one format.
    private func text(of documents: [ManifestStream.Document]) throws -> String {
        if output == .json { return try ManifestStream.json(documents.compactMap(\.object)) }
        var text = ""
        for document in documents {
            var next = output == .yaml ? try document.yaml() : document.text
            if next.isEmpty { continue }
            if text.isEmpty || document.isContinued {
                text += next
                continue
            }
            // By bytes: to Swift a CR and an LF are one character, and another than LF alone.
            if text.utf8.last != UInt8(ascii: "\n") { text += "\n" }
            // A byte order mark is of use at the beginning alone.
            if next.unicodeScalars.first == ManifestStream.mark { next.unicodeScalars.removeFirst() }
            if !next.hasPrefix("---") { text += "---\n" }
            text += next
        }
        return text
    }

    private static func expand(_ file: String) throws -> [String] {
        var isFolder: ObjCBool = false
        guard file != "-", FileManager.default.fileExists(atPath: file, isDirectory: &isFolder), isFolder.boolValue
        else {
            return [file]
        }
        let names = try FileManager.default.contentsOfDirectory(atPath: file).sorted()
        return names.filter { name in [".yaml", ".yml", ".json"].contains { name.hasSuffix($0) } }.map {
            file + "/" + $0
        }
    }

    private static func read(_ file: String) throws -> String {
        let data =
            file == "-" ? FileHandle.standardInput.readDataToEndOfFile() : FileManager.default.contents(atPath: file)
        guard let data else { try fail("\(file): cannot be read", code: 66) }
        // Foundation's own decoding would drop a byte order mark.
        guard let text = String(validating: data, as: UTF8.self) else {
            try fail("\(file): is no UTF-8 text", code: 65)
        }
        return text
    }

    private static func fail(_ sentence: String, code: Int32) throws -> Never {
        say("ferritectl: " + sentence)
        throw ExitCode(code)
    }

    private static func say(_ line: String) { FileHandle.standardError.write(Data((line + "\n").utf8)) }
}

extension PatchOperation {
    /// The same, for a document in which the pod is somewhere below.
    func below(_ base: JSONPointer) -> PatchOperation {
        let path = JSONPointer(base.parts + self.path.parts)
        return switch self {
        case .add(_, let value): .add(path, value)
        case .replace(_, let value): .replace(path, value)
        case .remove: .remove(path)
        }
    }
}
