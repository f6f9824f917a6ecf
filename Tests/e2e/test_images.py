"""scripts/images on a machine that cannot run containers. What it checks where one can is its own stage."""

import os
import shutil
import subprocess

from runner import Skipped, expect, expect_true, test

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts", "images")
TOOLS = ("buildah", "podman", "runc", "debootstrap")


@test("images: where the runtime starts no container each check is skipped, with what it says", once=True)
def _(t):
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing or os.geteuid() != 0:
        raise Skipped("not root" if os.geteuid() else f"missing {' '.join(missing)}")
    folder = t.folder()
    runtime = os.path.join(folder, "runc")
    with open(runtime, "w", encoding="ascii") as file:
        file.write("#!/bin/sh\necho 'mkdir /sys/fs/cgroup/x: read-only file system' >&2\nexit 1\n")
    os.chmod(runtime, 0o755)
    done = subprocess.run([SCRIPT], capture_output=True, text=True, timeout=120, check=False,
                          env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"})
    *skipped, last = done.stdout.splitlines()
    expect((done.returncode, last), (0, "0 passed, 0 failed"), done.stdout + done.stderr)
    expect_true(len(skipped) > 5, done.stdout)
    for line in skipped:
        expect_true(line.startswith("skipped images: ") and "/sys/fs/cgroup/x: read-only file system" in line, line)
