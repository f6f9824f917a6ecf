"""cgroup — a control group with a memory limit, as a container has one."""

import os
import re
import time

_count = 0


class Cgroup:
    """OSError where this machine lets nobody make one. Empty again when it is left."""

    def __init__(self, limit):
        global _count
        _count += 1
        self.folder, self.file = self._place()
        self.folder = os.path.join(self.folder, f"ferrite-test-{os.getpid()}-{_count}")
        os.mkdir(self.folder)
        self.limit(limit)

    @staticmethod
    def _place():
        """Below this process's own group: (folder, name of the limit's file)."""
        with open("/proc/self/cgroup", encoding="ascii") as file:
            groups = file.read()
        version1 = re.search(r"^\d+:(?:\w+,)*memory(?:,\w+)*:(.*)$", groups, re.M)
        if version1:
            return f"/sys/fs/cgroup/memory{version1[1]}", "memory.limit_in_bytes"
        version2 = re.search(r"^0::(.*)$", groups, re.M)
        if not version2:
            raise OSError("there is no memory controller")
        return f"/sys/fs/cgroup{version2[1]}", "memory.max"

    def limit(self, size):
        with open(os.path.join(self.folder, self.file), "w", encoding="ascii") as file:
            file.write(str(size))

    @property
    def under(self):
        """In front of a command: runs it in the group."""
        return ("/bin/sh", "-c", f'echo $$ > "{self.folder}/cgroup.procs" && exec "$@"', "sh")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for _ in range(100):
            try:
                return os.rmdir(self.folder)
            except OSError:
                time.sleep(0.02)
        return None
