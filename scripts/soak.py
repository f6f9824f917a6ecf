"""soak — the long runs of scripts/soak. Prints each command as one could type it, its figures, and a last line
"N passed, M failed"."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "Tests" / "harness"))

import servers  # noqa: E402

COHERENCE_ROUNDS = 20
FENCE_ROUNDS = 1000
JOURNAL_WRITES = 1_000_000


class Soak:
    def __init__(self, requests):
        self.requests = requests
        self.passed = self.failed = 0

    def count(self, good):
        self.passed += good
        self.failed += not good

    def benchmark(self, sidecar, *flags):
        words = ["redis-benchmark", "-q", "-n", str(self.requests), *map(str, flags)]
        print(f"$ {' '.join(words)}   [{sidecar.network}]", flush=True)
        result = subprocess.run(words, capture_output=True, text=True)
        said = (result.stdout + result.stderr).replace("\r", "\n")
        for line in said.splitlines():
            if "requests per second" in line or "rror" in line:
                print(f"    {line}")
        good = result.returncode == 0 and "rror" not in said and sidecar.is_alive()
        if not good:
            print(f"FAILED: {said[-1000:]}\n{sidecar.log()}")
        self.count(good)

    def benchmarks(self, network):
        with servers.Redis() as redis, servers.Sidecar(redis.address, network=network, unix=True) as sidecar:
            ways = (("-h", servers.HOST, "-p", sidecar.port), ("-s", sidecar.unix_path))
            for way in ways:
                for depth in (1, 16):
                    self.benchmark(sidecar, *way, "-r", 100000, "-d", 64, "-c", 50, "-t", "get,set", "-P", depth)
            self.benchmark(sidecar, *ways[0], "-r", 100000)
            self.benchmark(sidecar, *ways[0], "-r", 100000, "-P", 16)
            code = sidecar.stop()
            if code != 0:
                print(f"FAILED: ferrite ended with {code}\n{sidecar.log()}")
            self.count(code == 0)

    def end_to_end(self, pattern, **environment):
        words = [sys.executable, str(ROOT / "Tests" / "e2e" / "run.py"), pattern]
        self.count(subprocess.run(words, env={**os.environ, **environment}).returncode == 0)

    def coherence(self):
        for number in range(COHERENCE_ROUNDS):
            words = [sys.executable, str(ROOT / "Tests" / "e2e" / "run.py"), "coherence", "meddled", "losses"]
            result = subprocess.run(words)
            print(f"round {number + 1} of {COHERENCE_ROUNDS} ended with {result.returncode}", flush=True)
            self.count(result.returncode == 0)


def main():
    soak = Soak(int(sys.argv[1]))
    for network in servers.network_engines():
        soak.benchmarks(network)
    soak.end_to_end("test_fence", FERRITE_FENCE_ROUNDS=str(FENCE_ROUNDS))
    soak.end_to_end("killed again and again", FERRITE_JOURNAL_WRITES=str(JOURNAL_WRITES))
    soak.coherence()
    print(f"{soak.passed} passed, {soak.failed} failed")
    return 1 if soak.failed else 0


if __name__ == "__main__":
    sys.exit(main())
