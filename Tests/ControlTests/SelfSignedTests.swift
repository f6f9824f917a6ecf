import Foundation
import OrderedCollections
import SwiftASN1
import Testing
import X509

@testable import Control

@Suite("SelfSigned")
struct SelfSignedTests {
    private let names = SelfSigned.names(service: "ferrite-sidecar", namespace: "ferrite-system")
    private let now = Date(timeIntervalSince1970: 1_800_000_000)
    private let day = 86_400.0

    @Test("The first is for the Service's names, by an authority that may sign nothing but such")
    func first() throws {
        let made = try SelfSigned.renewed(nil, names: names, now: now)
        let leaf = try Certificate(pemEncoded: made.serving.certificate)
        let authority = try #require(made.authorities.first)
        #expect(made.authorities.count == 1 && leaf.issuer == authority.subject)
        #expect(authority.publicKey.isValidSignature(leaf.signature, for: leaf))
        #expect(try leaf.extensions.subjectAlternativeNames?.count == names.count)
        #expect(try leaf.extensions.basicConstraints == .notCertificateAuthority)
        #expect(leaf.notValidAfter <= authority.notValidAfter && leaf.notValidBefore < now)
    }

    @Test("It stays while a third of its time is left, and goes through a Secret as it is")
    func stays() throws {
        let made = try SelfSigned.renewed(nil, names: names, now: now)
        let read = try #require(SelfSigned(secret: made.secret()))
        #expect(read == made)
        #expect(try SelfSigned.renewed(read, names: names, now: now + 59 * day) == made)
    }

    @Test("Then it is signed anew by the same authority; for another name at once")
    func renewed() throws {
        let made = try SelfSigned.renewed(nil, names: names, now: now)
        let next = try SelfSigned.renewed(made, names: names, now: now + 61 * day)
        #expect(next.authorities == made.authorities && next.serving != made.serving)
        let other = try SelfSigned.renewed(made, names: ["other.ferrite-system.svc"], now: now)
        #expect(other.authorities == made.authorities && other.serving != made.serving)
    }

    @Test("An authority that is nearly over is replaced, and is trusted until it is over")
    func authority() throws {
        let made = try SelfSigned.renewed(nil, names: names, now: now)
        let late = now + 3_000 * day
        let next = try SelfSigned.renewed(made, names: names, now: late)
        #expect(next.authorities.count == 2 && next.authorities[1] == made.authorities[0])
        let leaf = try Certificate(pemEncoded: next.serving.certificate)
        #expect(next.authorities[0].publicKey.isValidSignature(leaf.signature, for: leaf))
        let later = try SelfSigned.renewed(next, names: names, now: now + 6_000 * day)
        #expect(!later.authorities.contains(made.authorities[0]))
    }

    @Test("What is damaged is made anew: a key that is another's, a Secret with something missing")
    func damaged() throws {
        let made = try SelfSigned.renewed(nil, names: names, now: now)
        let other = try SelfSigned.renewed(nil, names: names, now: now)
        var mixed = made
        mixed.serving.key = other.serving.key
        #expect(try SelfSigned.renewed(mixed, names: names, now: now).serving != mixed.serving)
        mixed = made
        mixed.authorityKey = other.authorityKey
        #expect(SelfSigned(secret: try mixed.secret()) == nil)
        for name in ["ca.crt", "ca.key", "tls.crt", "tls.key"] {
            guard case .object(var data) = try made.secret() else { return }
            data[name] = nil
            #expect(SelfSigned(secret: .object(data)) == nil)
            data[name] = "!"
            #expect(SelfSigned(secret: .object(data)) == nil)
        }
        #expect(SelfSigned(secret: nil) == nil)
    }
}
