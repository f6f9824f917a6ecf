import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import Synchronization

/// One request, whole.
struct HTTPRequest: Sendable {
    var method: HTTPMethod
    /// Without the query.
    var path: String
    var contentType: String?
    var body: ByteBuffer
}

struct HTTPReply: Sendable {
    var status: HTTPResponseStatus
    var contentType = "text/plain; charset=utf-8"
    var body: ByteBuffer

    static func text(_ text: String, _ status: HTTPResponseStatus = .ok) -> HTTPReply {
        HTTPReply(status: status, body: ByteBuffer(string: text))
    }
}

/// What a port answers; knows nothing of sockets. Called on an event loop, so it must not wait.
protocol HTTPEndpoint: Sendable {
    /// A larger body is refused with 413 before it is read.
    var bodyBytesMax: Int { get }
    func reply(to request: HTTPRequest) -> HTTPReply
    /// Told of what never became a request.
    func refused(_ status: HTTPResponseStatus)
}

extension HTTPEndpoint {
    func refused(_: HTTPResponseStatus) {}
}

/// A listening port: HTTP/1.1, with TLS when a certificate is given.
final class HTTPListener: Sendable {
    private let channel: any Channel
    private let connections: OpenConnections

    /// A connection that says nothing for this long is closed; longer than Go's clients keep one (90 s), so that none is
    /// closed in the moment in which it is used again.
    private static let idle = TimeAmount.seconds(180)

    /// - Parameters:
    ///   - bind: a numeric address; nil: every address of both families, or of IPv4 where there is no IPv6.
    ///   - group: the event loops on which requests are answered.
    init(
        bind: String?, port: Int, on group: any EventLoopGroup, certificate: ServingCertificate? = nil,
        _ endpoint: any HTTPEndpoint
    ) async throws {
        let connections = OpenConnections()
        self.connections = connections
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 128)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    connections.enter(channel)
                    channel.closeFuture.whenComplete { _ in connections.leave(channel) }
                    try pipeline.addHandler(IdleStateHandler(allTimeout: Self.idle))
                    if let certificate { try pipeline.addHandler(NIOSSLServerHandler(context: certificate.context())) }
                    /* Who does not read what is due to it is not read from. */
                    try pipeline.addHandler(BackPressureHandler())
                    try pipeline.configureHTTPServerPipeline(withPipeliningAssistance: true, withErrorHandling: true)
                    try pipeline.addHandler(ExchangeHandler(endpoint, connections))
                }
            }
        if let bind {
            channel = try await bootstrap.bind(host: bind, port: port).get()
        } else {
            do {
                channel = try await bootstrap.bind(host: "::", port: port).get()
            } catch let error as IOError where error.errnoCode != EADDRINUSE {
                channel = try await bootstrap.bind(host: "0.0.0.0", port: port).get()
            }
        }
    }

    /// The port the real one, where 0 was asked for.
    var port: Int { channel.localAddress?.port ?? 0 }

    /// From now on a connection ends with the answer to what it asks next.
    func letConnectionsEnd() { connections.isDraining.store(true, ordering: .relaxed) }

    /// Takes no new connection, closes those that ask nothing, and waits for the others.
    func stop(within: Duration) async {
        letConnectionsEnd()
        try? await channel.close()
        connections.closeIdle()
        let deadline = ContinuousClock.now + within
        while connections.count > 0, ContinuousClock.now < deadline { try? await Task.sleep(for: .milliseconds(20)) }
    }
}

/// Told to a connection that is to end unless it is being asked something.
private struct CloseIfIdle {}

/// What the connections of a port have in common: how many there may be, and how much of bodies that are under way.
private final class OpenConnections: Sendable {
    /// An API server keeps a few and uses them again.
    private static let max = 256
    /// Four of the largest.
    private static let bodyBytesMax = 12 << 20

    enum State: Comparable {
        /// It has never asked anything.
        case fresh
        case idle
        case asking
    }

    private struct Entry {
        var channel: any Channel
        var state = State.fresh
        var since = NIODeadline.now()
        /// Of the body that is under way.
        var bodyBytes = 0
    }

    /// An API server sends what it asks at once. Who does not may be closed for another after this.
    private static let patience = TimeAmount.seconds(1)

    let isDraining = Atomic<Bool>(false)
    private let entries = Mutex<[Entry]>([])

    var count: Int { entries.withLock { $0.count } }

    /// When there are too many one goes, the oldest of those that have never asked, or else that ask nothing now: those
    /// that only stay open must not keep the API server out. When all are asking it is the one that has been at it for
    /// longest; or the new one, when all have only begun.
    func enter(_ channel: any Channel) {
        let surplus: (any Channel)? = entries.withLock { entries in
            entries.append(Entry(channel: channel))
            guard entries.count > Self.max else { return nil }
            let others = entries.indices.dropLast()
            let least = others.min { entries[$0].state < entries[$1].state } ?? 0
            if entries[least].state < .asking { return entries.remove(at: least).channel }
            let longest = others.min { entries[$0].since < entries[$1].since } ?? 0
            let isSlow = NIODeadline.now() - entries[longest].since > Self.patience
            return entries.remove(at: isSlow ? longest : entries.count - 1).channel
        }
        surplus?.close(promise: nil)
    }

    func leave(_ channel: any Channel) { entries.withLock { $0.removeAll { $0.channel === channel } } }

    func note(_ channel: any Channel, _ state: State) {
        entries.withLock { entries in
            guard let index = entries.firstIndex(where: { $0.channel === channel }) else { return }
            entries[index].state = state
            entries[index].since = .now()
        }
    }

    func closeIdle() {
        for entry in entries.withLock({ $0 }) { entry.channel.pipeline.fireUserInboundEventTriggered(CloseIfIdle()) }
    }

    /// False when so many more would be too many; they are not counted then. Those that do not get on make room first.
    func takeBody(_ bytes: Int, of channel: any Channel) -> Bool {
        let (fits, slow) = entries.withLock { entries -> (Bool, [any Channel]) in
            var sum = entries.reduce(bytes) { $0 + $1.bodyBytes }
            var slow: [any Channel] = []
            let now = NIODeadline.now()
            while sum > Self.bodyBytesMax {
                let others = entries.indices.filter { entries[$0].bodyBytes > 0 && entries[$0].channel !== channel }
                guard let longest = others.min(by: { entries[$0].since < entries[$1].since }),
                    now - entries[longest].since > Self.patience
                else { return (false, slow) }
                sum -= entries[longest].bodyBytes
                slow.append(entries.remove(at: longest).channel)
            }
            if let own = entries.firstIndex(where: { $0.channel === channel }) { entries[own].bodyBytes += bytes }
            return (true, slow)
        }
        for channel in slow { channel.close(promise: nil) }
        return fits
    }

    func giveBody(of channel: any Channel) {
        entries.withLock { entries in
            if let own = entries.firstIndex(where: { $0.channel === channel }) { entries[own].bodyBytes = 0 }
        }
    }
}

/// One request at a time: the pipelining handler in front holds back the next until the answer is written.
private final class ExchangeHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    /// Within which a request is whole: an API server sends it at once, and waits for no longer by default.
    private static let wholeWithin = TimeAmount.seconds(10)

    private let endpoint: any HTTPEndpoint
    private let connections: OpenConnections
    private var head: HTTPRequestHead?
    private var body = ByteBuffer()
    private var deadline: Scheduled<Void>?
    /// What comes behind a request that was refused is not looked at: it may be its body's middle.
    private var isRefused = false

    init(_ endpoint: any HTTPEndpoint, _ connections: OpenConnections) {
        self.endpoint = endpoint
        self.connections = connections
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): begin(head, context)
        case .body(var part):
            guard head != nil else { return } /* refused */
            guard body.readableBytes + part.readableBytes <= endpoint.bodyBytesMax else { return refuseBody(context) }
            guard connections.takeBody(part.readableBytes, of: context.channel) else {
                return refuse(.serviceUnavailable, "too many requests are under way", context)
            }
            body.writeBuffer(&part)
        case .end:
            guard let head else { return }
            let path = head.uri.prefix { $0 != "?" }
            let request = HTTPRequest(
                method: head.method, path: String(path), contentType: head.headers.first(name: "Content-Type"),
                body: body)
            let ends = !head.isKeepAlive || connections.isDraining.load(ordering: .relaxed)
            write(endpoint.reply(to: request), to: head, closes: ends, context)
        }
    }

    private func begin(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        self.head = head
        connections.note(context.channel, .asking)
        let channel = context.channel
        deadline = context.eventLoop.scheduleTask(in: Self.wholeWithin) { channel.close(promise: nil) }
        let length = head.headers.first(name: "Content-Length").flatMap { Int($0) }
        if let length, length > endpoint.bodyBytesMax {
            refuseBody(context)
        } else if head.headers["Expect"].contains(where: { $0.lowercased() == "100-continue" }) {
            let head = HTTPResponseHead(version: head.version, status: .continue)
            context.writeAndFlush(wrapOutboundOut(.head(head)), promise: nil)
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is IdleStateHandler.IdleStateEvent || (event is CloseIfIdle && head == nil) {
            context.close(promise: nil)
        } else {
            context.fireUserInboundEventTriggered(event)
        }
    }

    /// The handler in front has answered what cannot be parsed with 400.
    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if error is HTTPParserError, !isRefused { endpoint.refused(.badRequest) }
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        forgetRequest(context)
        context.fireChannelInactive()
    }

    private func refuseBody(_ context: ChannelHandlerContext) {
        refuse(.payloadTooLarge, "the body is larger than \(endpoint.bodyBytesMax) bytes", context)
    }

    /// What of the body still comes is not read.
    private func refuse(_ status: HTTPResponseStatus, _ sentence: String, _ context: ChannelHandlerContext) {
        guard let head else { return }
        isRefused = true
        endpoint.refused(status)
        write(.text(sentence + "\n", status), to: head, closes: true, context)
    }

    private func forgetRequest(_ context: ChannelHandlerContext) {
        deadline?.cancel()
        deadline = nil
        head = nil
        connections.giveBody(of: context.channel)
        body = ByteBuffer()
    }

    private func write(_ reply: HTTPReply, to head: HTTPRequestHead, closes: Bool, _ context: ChannelHandlerContext) {
        forgetRequest(context)
        connections.note(context.channel, .idle)
        var headers = HTTPHeaders()
        headers.add(name: "Content-Type", value: reply.contentType)
        headers.add(name: "Content-Length", value: String(reply.body.readableBytes))
        headers.add(name: "Cache-Control", value: "no-store")
        if closes {
            headers.add(name: "Connection", value: "close")
        } else if head.version.minor == 0 {
            headers.add(name: "Connection", value: "keep-alive")
        }
        let response = HTTPResponseHead(version: head.version, status: reply.status, headers: headers)
        context.write(wrapOutboundOut(.head(response)), promise: nil)
        if head.method != .HEAD { context.write(wrapOutboundOut(.body(.byteBuffer(reply.body))), promise: nil) }
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        context.writeAndFlush(wrapOutboundOut(.end(nil))).whenComplete { _ in
            if closes { bound.value.close(promise: nil) }
        }
    }
}
