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

/// The metrics page as a service: it answers until everything started after it has ended, so that a drain can be
/// watched.
struct MetricsService: Service {
    let server: MetricsServer

    func run() async throws {
        try? await gracefulShutdown()
        await server.stop()
    }
}
