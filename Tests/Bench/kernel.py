"""kernel: what Linux says about a process: its processor time, its memory, its sockets' memory."""

import os
import re
import socket
import struct

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = CORES[0]
CLIENT_CORE = CORES[-1]

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST_DUMP = 0x301
NLMSG_ERROR = 2
NLMSG_DONE = 3
INET_DIAG_SKMEMINFO = 7
UNIX_DIAG_MEMINFO = 5
UDIAG_SHOW_MEMINFO = 0x20
SK_MEMINFO = ("rmem_alloc", "rcvbuf", "wmem_alloc", "sndbuf", "fwd_alloc", "wmem_queued", "optmem", "backlog")


def cpu_ns(pid):
    """Nanoseconds that all threads of a process have run, io_uring's workers included."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
                total += int(file.read().split()[0])
        except (FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            continue
    return total


def memory(pid):
    """VmHWM, VmRSS, RssAnon … of /proc/PID/status, in bytes."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", file.read(), re.M)}


def socket_inodes(pid):
    inodes = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{descriptor}"))
        except FileNotFoundError:  # closed meanwhile
            continue
        if match:
            inodes.add(int(match.group(1)))
    return inodes


SOCKET_RECORD_BYTES = 4096  # socket, file and protocol records of a connection, about


def socket_memory(pid):
    """Bytes that the kernel holds for the sockets of a process: SO_MEMINFO, asked by sock_diag, and their records."""
    inodes = socket_inodes(pid)
    total = len(inodes) * SOCKET_RECORD_BYTES
    for family in (socket.AF_INET, socket.AF_INET6):
        ext = 1 << (INET_DIAG_SKMEMINFO - 1)
        request = struct.pack("=BBBBI48x", family, socket.IPPROTO_TCP, ext, 0, 0xFFFFFFFF)
        for inode, info in _dump(request, 72, 68, INET_DIAG_SKMEMINFO):
            if inode in inodes:
                total += info["rmem_alloc"] + info["wmem_queued"] + info["fwd_alloc"] + info["backlog"]
    # A Unix socket's bytes are charged to their sender until the peer has read them.
    request = struct.pack("=BBHIII8x", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, UDIAG_SHOW_MEMINFO)
    for inode, info in _dump(request, 16, 4, UNIX_DIAG_MEMINFO):
        if inode in inodes:
            total += info["wmem_alloc"]
    return total


def _dump(request, header_bytes, inode_offset, wanted):
    """Yields (inode, meminfo) for every socket that a sock_diag request finds."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as link:
        header = struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, 1, 0)
        link.send(header + request)
        while True:
            data = link.recv(1 << 18)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    error = -struct.unpack_from("=i", data, 16)[0]
                    raise OSError(error, f"sock_diag: {os.strerror(error)}")
                message = data[16:length]
                inode = struct.unpack_from("=I", message, inode_offset)[0]
                info = _attribute(message[header_bytes:], wanted)
                if info is not None:
                    yield inode, dict(zip(SK_MEMINFO, struct.unpack_from("=8I", info)))
                data = data[(length + 3) & ~3:]


def _attribute(data, wanted):
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if kind == wanted:
            return data[4:length]
        if length < 4:
            return None
        data = data[(length + 3) & ~3:]
    return None


def describe():
    """The machine in one line each: kernel and processor."""
    processor = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        match = re.search(r"^model name\s*:\s*(.+)$", file.read(), re.M)
        if match:
            processor = match.group(1)
    return {"kernel": os.uname().release, "cpu": f"{processor}, {len(CORES)} cores"}
