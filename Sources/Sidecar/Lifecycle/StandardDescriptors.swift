import Glibc

/// StandardDescriptors — makes sure that 0, 1 and 2 are taken: who starts with them closed would find his log in whatever
/// socket was opened next.
enum StandardDescriptors {
    /// First of all, before anything is opened.
    static func fill() {
        for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) < 0 {
            _ = open("/dev/null", O_RDWR)
        }
    }
}
