import CFastPath
import Glibc
import Synchronization

/// What keeps upstream TLS from being spoken: a clause about a key of the configuration.
struct TLSMistake: Error, Equatable {
    var key: String
    /// `"/etc/ferrite/tls/ca.crt": there is no certificate in it`.
    var what: String
    var expected: String
}

/// TLSContext — what links to the upstream trust and show, as read from the files that the configuration names. Made by a
/// control thread, for reading may wait; then handed to the engine.
final class TLSContext: Sendable {
    /// A bundle of all the authorities in the world is a quarter of this.
    static let bytesMax = 1 << 20

    /// Of an fp_tls; 0: it has been taken.
    private let address: Atomic<UInt>

    init(_ config: SidecarConfig) throws(TLSMistake) {
        let ca = try Self.read(config.tls.caCertFile, "tls_ca_cert_file", Self.certificates)
        let certificate = try Self.read(config.tls.certFile, "tls_cert_file", Self.certificates)
        var key = try Self.read(config.tls.keyFile, "tls_key_file", Self.privateKey)
        defer { key.withUnsafeMutableBytes { if let start = $0.baseAddress { explicit_bzero(start, $0.count) } } }
        address = Atomic(UInt(bitPattern: try Self.make(config, ca, certificate, key)))
    }

    /// All that is wrong with the files, for a check that starts nothing.
    static func mistakes(_ config: SidecarConfig) -> [TLSMistake] {
        let unread = [
            ("tls_ca_cert_file", config.tls.caCertFile, certificates),
            ("tls_cert_file", config.tls.certFile, certificates), ("tls_key_file", config.tls.keyFile, privateKey),
        ].compactMap { key, path, expected in mistake { () throws(TLSMistake) in _ = try read(path, key, expected) } }
        return unread.isEmpty
            ? [mistake { () throws(TLSMistake) in _ = try TLSContext(config) }].compactMap(\.self) : unread
    }

    private static func mistake(_ body: () throws(TLSMistake) -> Void) -> TLSMistake? {
        do throws(TLSMistake) {
            try body()
            return nil
        } catch {
            return error
        }
    }

    private static func make(_ config: SidecarConfig, _ ca: [UInt8], _ certificate: [UInt8], _ key: [UInt8])
        throws(TLSMistake) -> OpaquePointer
    {
        let name = config.tls.serverName.isEmpty ? config.upstream.host : config.tls.serverName
        var part = fp_tls_part.FP_TLS_LIBRARY
        var error: fp_error?
        let tls = ca.withUnsafeBytes { ca in
            certificate.withUnsafeBytes { certificate in
                key.withUnsafeBytes { key in
                    name.withCString { name in
                        var config = fp_tls_config(
                            server_name: name, ca: ca.baseAddress, certificate: certificate.baseAddress,
                            key: key.baseAddress, ca_length: ca.count, certificate_length: certificate.count,
                            key_length: key.count, is_1_3: config.tls.minVersion == .v13)
                        return fp_tls_create(&config, &part, &error)
                    }
                }
            }
        }
        guard let tls else {
            let clause = error.map { String(cString: $0) } ?? "it cannot be used"
            throw Self.mistake(part, clause, config)
        }
        return tls
    }

    deinit { fp_tls_free(take()) }

    /// Once; nil from then on.
    func take() -> OpaquePointer? { OpaquePointer(bitPattern: address.exchange(0, ordering: .acquiringAndReleasing)) }

    private static let certificates = "the path of a file of certificates in PEM"
    private static let privateKey = "the path of a file with tls_cert_file's private key in PEM, without a passphrase"

    private static func mistake(_ part: fp_tls_part, _ clause: String, _ config: SidecarConfig) -> TLSMistake {
        let (key, path, expected) =
            switch part {
            case .FP_TLS_LIBRARY: ("upstream", "\(config.upstream)", "a system whose OpenSSL works, or no rediss://")
            case .FP_TLS_NAME:
                (
                    config.tls.serverName.isEmpty ? "upstream" : "tls_server_name",
                    config.tls.serverName.isEmpty ? config.upstream.host : config.tls.serverName,
                    "a host's name or a numeric address"
                )
            case .FP_TLS_CA: ("tls_ca_cert_file", config.tls.caCertFile, certificates)
            case .FP_TLS_CERTIFICATE: ("tls_cert_file", config.tls.certFile, certificates)
            case .FP_TLS_KEY: ("tls_key_file", config.tls.keyFile, privateKey)
            }
        return TLSMistake(key: key, what: "\"\(path)\": \(clause)", expected: expected)
    }

    /// An empty path is an empty file.
    private static func read(_ path: String, _ key: String, _ expected: String) throws(TLSMistake) -> [UInt8] {
        guard !path.isEmpty else { return [] }
        /* A pipe would keep us waiting for ever. */
        guard !TextFile.isSpecial(path) else {
            throw TLSMistake(key: key, what: "\"\(path)\" is no file", expected: expected)
        }
        let bytes: [UInt8]
        do throws(TextFile.Failure) {
            bytes = try TextFile.bytes(path, bytesMax: bytesMax)
        } catch {
            throw TLSMistake(key: key, what: "\"\(path)\" cannot be read: \(error.sentence)", expected: expected)
        }
        guard !bytes.isEmpty else { throw TLSMistake(key: key, what: "\"\(path)\" is empty", expected: expected) }
        return bytes
    }
}
