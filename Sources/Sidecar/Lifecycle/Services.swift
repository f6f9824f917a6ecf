import Logging
import ServiceLifecycle

/// The loop as a service: asked to stop, it drains; it ends when the loop's thread has.
struct LoopService: Service {
    let loop: LoopHandle

    func run() async throws {
        await withGracefulShutdownHandler {
            await loop.finished()
        } onGracefulShutdown: {
            loop.beginDrain()
        }
    }
}

/// Pages as a service: they answer until everything started after them has ended, so that a drain can be watched.
struct PageService: Service {
    let server: HTTPServer

    func run() async throws {
        try? await gracefulShutdown()
        await server.stop()
    }
}
