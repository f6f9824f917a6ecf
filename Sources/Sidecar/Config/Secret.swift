/// A text that is never printed: every way of turning it into a string gives stars. `reveal()` is for AUTH alone.
struct Secret: Sendable, Equatable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    private let text: String

    init(_ text: String) { self.text = text }

    var isEmpty: Bool { text.isEmpty }
    func reveal() -> String { text }

    var description: String { text.isEmpty ? "" : "********" }
    var debugDescription: String { description }
    var customMirror: Mirror { Mirror(self, children: []) }
}
