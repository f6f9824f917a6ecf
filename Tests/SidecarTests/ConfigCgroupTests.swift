import Testing

@testable import Sidecar

@Suite("the container's memory limit")
struct ConfigCgroupTests {
    @Test("the smallest of all limits holds; max and v1's huge number mean none")
    func limits() {
        #expect(CgroupMemory.limit(texts: ["max\n", "134217728\n"]) == 128 << 20)
        #expect(CgroupMemory.limit(texts: ["268435456\n", "134217728\n", "max"]) == 128 << 20)
        #expect(CgroupMemory.limit(texts: ["9223372036854771712\n"]) == nil)
        #expect(CgroupMemory.limit(texts: ["max\n"]) == nil)
        #expect(CgroupMemory.limit(texts: ["", "rubbish", "-1"]) == nil)
        #expect(CgroupMemory.limit(texts: []) == nil)
    }

    @Test("16 MiB or 12% stay free, whichever is more")
    func usable() {
        #expect(CgroupMemory.usable(limit: 128 << 20) == 112 << 20)
        #expect(CgroupMemory.usable(limit: 48 << 20) == 32 << 20)
        #expect(CgroupMemory.usable(limit: 10 << 20) == 0)
        let gib = CgroupMemory.usable(limit: 1 << 30)
        #expect(gib <= (1 << 30) * 88 / 100 && gib > (1 << 30) * 88 / 100 - 8192)
        let huge: UInt64 = 1 << 59
        #expect(CgroupMemory.usable(limit: huge) < huge)
    }

    @Test("every group from ours to the root is asked, in v1 and v2")
    func files() {
        #expect(
            CgroupMemory.limitFiles(groups: "0::/kubepods/pod1/c1\n") == [
                "/sys/fs/cgroup/kubepods/pod1/c1/memory.max", "/sys/fs/cgroup/kubepods/pod1/memory.max",
                "/sys/fs/cgroup/kubepods/memory.max", "/sys/fs/cgroup/memory.max",
            ])
        #expect(
            CgroupMemory.limitFiles(groups: "9:cpu:/x\n4:memory:/docker/abc\n0::/\n") == [
                "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max",
            ])
        #expect(CgroupMemory.limitFiles(groups: "0::/../../other\n") == ["/sys/fs/cgroup/memory.max"])
        #expect(CgroupMemory.limitFiles(groups: "nonsense\n").isEmpty)
    }
}
