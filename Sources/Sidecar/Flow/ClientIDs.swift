/// ClientIDs — what CLIENT ID says is our number, for the upstream knows a client only from when it has a link of its own,
/// and by that link's. Where a client with such a link names another (CLIENT UNBLOCK, KILL, LIST, TRACKING … REDIRECT), or
/// asks for an id, the one is put for the other. A number of a client without a link stays: it is above every id that an
/// upstream gives, so that nobody else is meant by it.
extension Flow {
    /// The request in the upstream's ids; nil when it names no client of ours that has a link.
    func requestInUpstreamIDs(_ request: Bytes, isKill: Bool) -> [UInt8]? {
        var reader = ReplyReader(request)
        guard let (type, count) = reader.header(), type == UInt8(ascii: "*") else { return nil }
        var arguments: [[UInt8]] = []
        var changed = false
        while arguments.count < count, let argument = reader.text() {
            let number = UInt64(String(decoding: argument.prefix(24), as: UTF8.self))
            let named = number.flatMap { number in pins.first { $0.number == number } }
            let id = named?.pointee.machine.connectionID
            if isKill { named?.pointee.isDoomed = true }
            changed = changed || id != nil
            arguments.append(id.map { Array(String($0).utf8) } ?? Array(argument))
        }
        return changed && arguments.count == Int(count) ? Credentials.encode(arguments) : nil
    }

    /// The reply with our number in place of the upstream's id; nil when it is of no client of ours.
    func replyInOurIDs(_ reply: Bytes) -> [UInt8]? {
        guard let id = Reply(reply).integer, let session = pins.first(where: { $0.machine.connectionID == id })
        else { return nil }
        return Array(":\(session.pointee.number)\r\n".utf8)
    }
}
