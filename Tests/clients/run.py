"""run — runs the tests of this folder; --help says how to choose among them."""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "harness"))

import runner  # noqa: E402

if __name__ == "__main__":
    sys.exit(runner.main(HERE, __doc__))
