/// HTTPPage — an answer, whoever serves it.
struct HTTPPage: Sendable, Equatable {
    var status: Int
    var contentType: String
    var body: String

    static let plain = "text/plain; charset=utf-8"

    static func text(_ body: String, status: Int = 200) -> HTTPPage {
        HTTPPage(status: status, contentType: plain, body: body)
    }
}

/// HTTPPages — what a server answers; knows nothing of sockets.
protocol HTTPPages: Sendable {
    /// "GET, HEAD": for who asks otherwise.
    var methods: String { get }
    /// `query` as it stands behind "?", not decoded.
    func page(_ method: String, _ path: String, query: String) async -> HTTPPage
}
