import NIOCore
import NIOHTTP1
import NIOPosix

/// Pages over HTTP: one NIO event loop, few connections, small requests.
final class HTTPServer: Sendable {
    private let group: MultiThreadedEventLoopGroup
    private let channel: any Channel

    /// Connections at one time; a scraper needs one.
    private static let connectionsMax = 32
    /// A connection that says nothing for this long is closed.
    private static let idle = TimeAmount.seconds(60)

    /// Takes the socket over. Called on a thread of SCHED_IDLE class, which the event loop's thread inherits.
    init(_ fd: Int32, _ pages: any HTTPPages) async throws {
        group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let open = OpenConnections(max: Self.connectionsMax)
        channel = try await ServerBootstrap(group: group)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    open.enter(channel)
                    channel.closeFuture.whenComplete { _ in open.leave(channel) }
                    try pipeline.addHandler(IdleStateHandler(allTimeout: Self.idle))
                    try pipeline.configureHTTPServerPipeline(withPipeliningAssistance: true, withErrorHandling: true)
                    try pipeline.addHandler(PageHandler(pages))
                }
            }
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 2048))
            .withBoundSocket(fd)
            .get()
    }

    func stop() async {
        try? await channel.close()
        try? await group.shutdownGracefully()
    }
}

/// On the one event loop only. When there are too many the oldest goes: connections that only stay open must not keep
/// a probe out.
private final class OpenConnections: @unchecked Sendable {
    private var channels: [any Channel] = []
    private let max: Int

    init(max: Int) { self.max = max }

    func enter(_ channel: any Channel) {
        if channels.count >= max { channels.removeFirst().close(promise: nil) }
        channels.append(channel)
    }

    func leave(_ channel: any Channel) { channels.removeAll { $0 === channel } }
}

/// One request at a time: the pipelining handler in front holds back the next until the answer is written.
private final class PageHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private static let bodyBytesMax = 4096

    private let pages: any HTTPPages
    private var head: HTTPRequestHead?
    private var bodyBytes = 0

    init(_ pages: any HTTPPages) { self.pages = pages }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            self.head = head
            bodyBytes = 0
            let announced = head.headers.first(name: "Content-Length").flatMap { Int($0) } ?? 0
            if announced > Self.bodyBytesMax { refuse(head, context) }
        case .body(let body):
            guard let head else { return }
            bodyBytes += body.readableBytes
            if bodyBytes > Self.bodyBytesMax { refuse(head, context) }
        case .end:
            guard let head else { return }
            self.head = nil
            answer(head, context)
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is IdleStateHandler.IdleStateEvent {
            context.close(promise: nil)
        } else {
            context.fireUserInboundEventTriggered(event)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        context.close(promise: nil)
    }

    /// Its body is too large, and not waited for.
    private func refuse(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        self.head = nil
        var head = head
        head.headers.replaceOrAdd(name: "Connection", value: "close")
        write(.text("a body of more than \(Self.bodyBytesMax) bytes is not read\n", status: 413), head, context)
    }

    private func answer(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        let parts = head.uri.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let (path, query) = (String(parts[0]), parts.count > 1 ? String(parts[1]) : "")
        let pages = self.pages
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        context.eventLoop.makeFutureWithTask { await pages.page(head.method.rawValue, path, query: query) }.whenSuccess
        { page in
            let (handler, context) = bound.value
            if context.channel.isActive { handler.write(page, head, context) }
        }
    }

    private func write(_ page: HTTPPage, _ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        var headers = HTTPHeaders()
        headers.add(name: "Content-Type", value: page.contentType)
        headers.add(name: "Content-Length", value: String(page.body.utf8.count))
        headers.add(name: "Cache-Control", value: "no-store")
        if page.status == 405 { headers.add(name: "Allow", value: pages.methods) }
        if !head.isKeepAlive { headers.add(name: "Connection", value: "close") }
        let response = HTTPResponseHead(
            version: head.version, status: HTTPResponseStatus(statusCode: page.status), headers: headers)
        context.write(wrapOutboundOut(.head(response)), promise: nil)
        if head.method != .HEAD {
            context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: page.body)))), promise: nil)
        }
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        context.writeAndFlush(wrapOutboundOut(.end(nil))).whenComplete { _ in
            if !head.isKeepAlive { bound.value.close(promise: nil) }
        }
    }
}
