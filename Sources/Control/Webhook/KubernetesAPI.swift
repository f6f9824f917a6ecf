import Foundation
import NIOCore
import NIOFoundationCompat
import NIOHTTP1
import NIOPosix
import NIOSSL

/// The few calls that the webhook makes of the API server, as the pod's service account: a connection each.
struct KubernetesAPI: Sendable {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    struct Reply: Sendable {
        var status: UInt
        var body: JSON

        /// The API server's own words, where it has some.
        var message: String { body["message"]?.string ?? "HTTP \(status)" }
    }

    private let host: String
    private let port: Int
    private let account: String

    static let accountDefault = "/var/run/secrets/kubernetes.io/serviceaccount"
    private static let timeout = TimeAmount.seconds(10)
    private static let answerBytesMax = 4 << 20

    /// Where the kubelet has put it: two variables, and the folder with token, ca.crt and namespace.
    init(environment: [String: String], account: String) throws(Failure) {
        guard let host = environment["KUBERNETES_SERVICE_HOST"], !host.isEmpty,
            let port = environment["KUBERNETES_SERVICE_PORT"].flatMap({ Int($0) })
        else {
            throw Failure(
                description:
                    "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: --self-signed works inside a cluster; "
                    + "elsewhere give --cert-dir")
        }
        (self.host, self.port, self.account) = (host, port, account)
    }

    func namespace() throws(Failure) -> String {
        try file("namespace").trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// - Parameter path: with the leading slash.
    /// - Throws: when there was no answer. An answer that says no is a Reply.
    func call(_ method: HTTPMethod, _ path: String, _ body: JSON? = nil, type: String = "application/json") async throws
        -> Reply
    {
        /* Read each time: the token is replaced every hour, the authority with the cluster's. */
        let token = try file("token").trimmingCharacters(in: .whitespacesAndNewlines)
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.minimumTLSVersion = .tlsv12
        configuration.trustRoots = .certificates(try NIOSSLCertificate.fromPEMBytes(Array(file("ca.crt").utf8)))
        configuration.applicationProtocols = ["http/1.1"]
        let context = try NIOSSLContext(configuration: configuration)
        let isName = (try? SocketAddress(ipAddress: host, port: port)) == nil
        let serverName = isName ? host : nil

        var headers = HTTPHeaders()
        headers.add(name: "Host", value: host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)")
        headers.add(name: "Authorization", value: "Bearer \(token)")
        headers.add(name: "Accept", value: "application/json")
        headers.add(name: "User-Agent", value: "ferritectl/\(Version.current)")
        headers.add(name: "Connection", value: "close")
        let bytes = try body.map { ByteBuffer(data: try JSONEncoder().encode($0)) }
        if let bytes {
            headers.add(name: "Content-Type", value: type)
            headers.add(name: "Content-Length", value: String(bytes.readableBytes))
        }
        let head = HTTPRequestHead(version: .http1_1, method: method, uri: path, headers: headers)

        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let promise = loop.makePromise(of: (UInt, ByteBuffer).self)
        let timer = loop.scheduleTask(in: Self.timeout) {
            promise.fail(Failure(description: "the API server at \(host):\(port) has not answered within 10 s"))
        }
        let connecting = ClientBootstrap(group: loop)
            .connectTimeout(Self.timeout)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.addHandler(NIOSSLClientHandler(context: context, serverHostname: serverName))
                    try pipeline.addHTTPClientHandlers()
                    try pipeline.addHandler(AnswerHandler(head, bytes, promise, bytesMax: Self.answerBytesMax))
                }
            }
            .connect(host: host, port: port)
        connecting.whenFailure { promise.fail($0) }
        defer {
            timer.cancel()
            connecting.whenSuccess { $0.close(promise: nil) }
        }
        let (status, answer) = try await withTaskCancellationHandler {
            try await promise.futureResult.get()
        } onCancel: {
            promise.fail(CancellationError())
        }
        return Reply(status: status, body: (try? JSONReader.read(answer.readableBytesView)) ?? .null)
    }

    private func file(_ name: String) throws(Failure) -> String {
        let path = account + "/" + name
        do {
            return try String(contentsOfFile: path, encoding: .utf8)
        } catch {
            throw Failure(description: "cannot read \(path): \(error.localizedDescription)")
        }
    }
}

/// Asks when the connection stands, and gathers what comes.
private final class AnswerHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    private let head: HTTPRequestHead
    private let body: ByteBuffer?
    private let promise: EventLoopPromise<(UInt, ByteBuffer)>
    private let bytesMax: Int
    private var status: UInt = 0
    private var answer = ByteBuffer()

    init(_ head: HTTPRequestHead, _ body: ByteBuffer?, _ promise: EventLoopPromise<(UInt, ByteBuffer)>, bytesMax: Int) {
        (self.head, self.body, self.promise, self.bytesMax) = (head, body, promise, bytesMax)
    }

    func channelActive(context: ChannelHandlerContext) {
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        if let body { context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: nil) }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): status = head.status.code
        case .body(var part):
            answer.writeBuffer(&part)
            if answer.readableBytes > bytesMax {
                promise.fail(
                    KubernetesAPI.Failure(description: "the API server's answer is larger than \(bytesMax) bytes"))
                context.close(promise: nil)
            }
        case .end:
            promise.succeed((status, answer))
            context.close(promise: nil)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        promise.fail(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        promise.fail(KubernetesAPI.Failure(description: "the API server has closed the connection without an answer"))
    }
}
