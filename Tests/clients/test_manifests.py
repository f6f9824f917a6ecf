"""What the injector makes of pods, judged by others: JSON Patch by jsonpatch, pods by Kubernetes' own schemas."""

import json
import os
import subprocess

import jsonpatch
import kubernetes_validate
from runner import expect, test
from servers import ferritectl_binary

TESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "ControlTests")
# The first that starts native sidecars by itself, and the newest that the schemas know.
VERSIONS = ("1.29", kubernetes_validate.latest_version())
# Resources of a pod as a whole came with 1.32.
NEWER = {"pod-resources", "pod-limits", "pod-limits-requested"}


def read(*path):
    with open(os.path.join(TESTS, *path)) as file:
        return json.load(file)


def pods():
    for name in sorted(os.listdir(os.path.join(TESTS, "Pods"))):
        if not name.endswith(".golden.json"):
            yield name.removesuffix(".json"), read("Pods", name)
    for name in sorted(os.listdir(os.path.join(TESTS, "Admission"))):
        pod = read("Admission", name)["request"]["object"]
        yield name.removesuffix(".json"), {"apiVersion": "v1", "kind": "Pod", **pod}


def injected(pod):
    done = subprocess.run([ferritectl_binary(), "inject", "-f", "-"], input=json.dumps(pod), capture_output=True,
                          text=True, check=True)
    return json.loads(done.stdout)


@test("inject: pods that get a sidecar are valid, strictly, for the oldest and the newest Kubernetes", once=True)
def _(t):
    count = 0
    for name, pod in pods():
        after = injected(pod)
        expect(after == pod, False, f"{name} has no sidecar")
        for version in VERSIONS[1:] if name in NEWER else VERSIONS:
            kubernetes_validate.validate(after, version, strict=True)
            count += 1
    t.note(f"{count} pods, {' and '.join(VERSIONS)}")


@test("inject: the patch that the webhook sends, applied by somebody else, gives the pod that inject writes", once=True)
def _(t):
    for name, pod in pods():
        if os.path.exists(os.path.join(TESTS, "Pods", name + ".golden.json")):
            patch = read("Pods", name + ".golden.json")["patch"]
            expect(jsonpatch.apply_patch(pod, patch), injected(pod), name)
