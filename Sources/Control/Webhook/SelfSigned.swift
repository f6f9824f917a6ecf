import Crypto
import Foundation
import SwiftASN1
import X509

/// An authority of the webhook's own and what it has signed: the content of the Secret, and what becomes of it in time.
struct SelfSigned: Equatable, Sendable {
    /// ca.crt: the authority that signs, then those it has replaced and that are not over yet. It is the caBundle.
    var authorities: [Certificate]
    var authorityKey: String
    var serving: PEMPair

    private static let day = 86_400.0
    static let authorityLife = 3_650 * day
    static let servingLife = 90 * day

    /// The names under which the API server may call the Service.
    static func names(service: String, namespace: String) -> [String] {
        ["\(service).\(namespace).svc", "\(service).\(namespace).svc.cluster.local", "\(service).\(namespace)"]
    }

    /// What to go on with: `present` where it is good for `names` and has a third of its time left; otherwise with what
    /// is over, or nearly, made anew. An authority that is replaced stays in the bundle, since a server may still show
    /// what it has signed.
    static func renewed(_ present: SelfSigned?, names: [String], now: Date) throws -> SelfSigned {
        if let present, let authority = present.authorities.first, !isDue(authority, now) {
            if present.isServed(for: names), let leaf = present.leaf, !isDue(leaf, now) { return present }
            var next = present
            next.serving = try sign(names, by: authority, key: present.authorityKey, now: now)
            return next
        }
        let key = P256.Signing.PrivateKey()
        let name = try DistinguishedName { CommonName("ferrite sidecar injector") }
        let authority = try Certificate(
            version: .v3, serialNumber: serialNumber(), publicKey: .init(key.publicKey),
            notValidBefore: now - 3_600, notValidAfter: now + authorityLife, issuer: name, subject: name,
            signatureAlgorithm: .ecdsaWithSHA256,
            extensions: try .init {
                Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0))
                Critical(KeyUsage(keyCertSign: true, cRLSign: true))
                identifier(of: key.publicKey)
            },
            issuerPrivateKey: .init(key))
        let before = present?.authorities.filter { $0.notValidAfter > now } ?? []
        return SelfSigned(
            authorities: [authority] + before, authorityKey: key.pemRepresentation,
            serving: try sign(names, by: authority, key: key.pemRepresentation, now: now))
    }

    private static func isDue(_ certificate: Certificate, _ now: Date) -> Bool {
        let life = certificate.notValidAfter.timeIntervalSince(certificate.notValidBefore)
        return now < certificate.notValidBefore || certificate.notValidAfter.timeIntervalSince(now) < life / 3
    }

    private var leaf: Certificate? { try? Certificate(pemEncoded: serving.certificate) }

    private func isServed(for names: [String]) -> Bool {
        guard let leaf, let authority = authorities.first,
            authority.publicKey.isValidSignature(leaf.signature, for: leaf),
            let key = try? P256.Signing.PrivateKey(pemRepresentation: serving.key),
            leaf.publicKey == Certificate.PublicKey(key.publicKey),
            let found = try? leaf.extensions.subjectAlternativeNames
        else { return false }
        return names.allSatisfy { name in found.contains(.dnsName(name)) }
    }

    private static func sign(_ names: [String], by authority: Certificate, key: String, now: Date) throws -> PEMPair {
        let own = P256.Signing.PrivateKey()
        let signer = try P256.Signing.PrivateKey(pemRepresentation: key)
        let leaf = try Certificate(
            version: .v3, serialNumber: serialNumber(), publicKey: .init(own.publicKey),
            notValidBefore: now - 3_600, notValidAfter: min(now + servingLife, authority.notValidAfter),
            issuer: authority.subject, subject: try DistinguishedName { CommonName("ferrite-sidecar") },
            signatureAlgorithm: .ecdsaWithSHA256,
            extensions: try .init {
                Critical(BasicConstraints.notCertificateAuthority)
                Critical(KeyUsage(digitalSignature: true))
                try ExtendedKeyUsage([.serverAuth])
                SubjectAlternativeNames(names.map { .dnsName($0) })
                AuthorityKeyIdentifier(keyIdentifier: identifier(of: signer.publicKey).keyIdentifier)
            },
            issuerPrivateKey: .init(signer))
        return PEMPair(certificate: try leaf.serializeAsPEM().pemString, key: own.pemRepresentation)
    }

    /// 128 random bits: of the library's own twenty bytes half would be one too long (RFC 5280, 4.1.2.2).
    private static func serialNumber() -> Certificate.SerialNumber {
        .init(bytes: (0..<16).map { _ in UInt8.random(in: .min ... .max) })
    }

    /// RFC 7093, 2: the first 160 bits of the key's SHA-256.
    private static func identifier(of key: P256.Signing.PublicKey) -> SubjectKeyIdentifier {
        SubjectKeyIdentifier(keyIdentifier: ArraySlice(SHA256.hash(data: key.x963Representation).prefix(20)))
    }
}

extension SelfSigned {
    /// `ca.crt` as the Secret has it.
    func bundle() throws -> String { try Self.bundle(authorities, and: [], now: .distantPast) }

    /// PEM of these, and of those others that are not over, as long as it is not many.
    static func bundle(_ authorities: [Certificate], and others: [Certificate], now: Date) throws -> String {
        let kept = others.filter { !authorities.contains($0) && $0.notValidAfter > now }
        return try (authorities + kept).prefix(4).map { try $0.serializeAsPEM().pemString }.joined(separator: "\n")
            + "\n"
    }

    /// None where it is no PEM of certificates.
    static func authorities(pem: String) -> [Certificate] {
        (try? PEMDocument.parseMultiple(pemString: pem).map { try Certificate(pemDocument: $0) }) ?? []
    }

    /// The `data` of a Secret of type kubernetes.io/tls; nil where something is missing or cannot be read.
    init?(secret: JSON?) {
        func text(_ name: String) -> String? {
            secret?[name]?.string.flatMap { Data(base64Encoded: $0) }.map { String(decoding: $0, as: UTF8.self) }
        }
        guard let bundle = text("ca.crt"), let authorityKey = text("ca.key"), let certificate = text("tls.crt"),
            let key = text("tls.key"), case let authorities = Self.authorities(pem: bundle),
            let first = authorities.first,
            let signer = try? P256.Signing.PrivateKey(pemRepresentation: authorityKey),
            first.publicKey == Certificate.PublicKey(signer.publicKey)
        else { return nil }
        self.init(
            authorities: authorities, authorityKey: authorityKey, serving: PEMPair(certificate: certificate, key: key))
    }

    func secret() throws -> JSON {
        func coded(_ text: String) -> JSON { .string(Data(text.utf8).base64EncodedString()) }
        return [
            "ca.crt": coded(try bundle()), "ca.key": coded(authorityKey), "tls.crt": coded(serving.certificate),
            "tls.key": coded(serving.key),
        ]
    }
}
