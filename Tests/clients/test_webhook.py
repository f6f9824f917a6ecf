"""The three recorded reviews through the real webhook, over TLS: the patch is applied by jsonpatch, and what comes of
it judged by Kubernetes' own schemas."""

import json
import os
import subprocess
import tempfile

import jsonpatch
import kubernetes_validate
import yaml
from certificates import Authority
from kubernetes import NAMESPACE, APIServer, Webhook
from runner import expect, expect_true, test
from servers import HOST, ROOT, ferritectl_binary, wait_until

REVIEWS = ROOT / "Tests" / "ControlTests" / "Admission"
VERSIONS = ("1.29", kubernetes_validate.latest_version())


def injected(pod):
    done = subprocess.run([ferritectl_binary(), "inject", "-f", "-"], input=json.dumps(pod), capture_output=True,
                          text=True, check=True)
    return json.loads(done.stdout)


@test("webhook: patches of recorded reviews apply, are valid, as inject's, and empty the second time", once=True)
def _(t):
    with tempfile.TemporaryDirectory(prefix="ferrite-test-") as folder:
        signer = Authority(os.path.join(folder, "authority"))
        signer.sign(folder, f"DNS:localhost,IP:{HOST}")
        with Webhook("--cert-dir", folder, "--shutdown-delay", "0", authority=signer.path) as hook:
            names = sorted(os.listdir(REVIEWS))
            for name in names:
                with open(REVIEWS / name) as file:
                    review = json.load(file)
                request = review["request"]
                response, patch = hook.decide(review)
                expect((response["uid"], response["allowed"]), (request["uid"], True), name)
                pod = {"apiVersion": "v1", "kind": "Pod", **request["object"]}
                after = jsonpatch.apply_patch(pod, patch)
                expect_true(after != pod, name)
                for version in VERSIONS:
                    kubernetes_validate.validate(after, version, strict=True)
                expect(injected(pod), after, name)
                # reinvocationPolicy: IfNeeded brings it again.
                request["object"] = jsonpatch.apply_patch(request["object"], patch)
                response, patch = hook.decide(review)
                expect((response["allowed"], patch, response.get("warnings")), (True, [], None), name)
            t.note(f"{len(names)} reviews, {' and '.join(VERSIONS)}")


def is_allowed(rules, method, path):
    """Whether RBAC rules allow a call: by its group, resource, name and verb."""
    parts = path.strip("/").split("/")
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
    resource, name = (rest[2:] if rest[0] == "namespaces" else rest)[:2] + ([""] if len(rest) % 2 else [])
    verb = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch"}[method]
    return any(group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"]
               and name in rule.get("resourceNames", [name]) for rule in rules)


@test("webhook: the rights that are installed are those that its calls of the API server need", once=True)
def _(t):
    with open(ROOT / "deploy" / "kustomize" / "base" / "rbac.yaml") as file:
        rules = [rule for thing in yaml.safe_load_all(file) for rule in thing.get("rules", [])]
    expect(is_allowed(rules, "GET", f"/api/v1/namespaces/{NAMESPACE}/secrets/other"), False)
    path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/ferrite-sidecar"
    api = APIServer()
    try:
        api.put(path, {"webhooks": [{"name": "one", "clientConfig": {}}]})
        with Webhook("--self-signed", "ferrite-sidecar-tls", "--shutdown-delay", "0", "--service-account", api.folder,
                     env=api.environment) as hook:
            wait_until(lambda: hook.health("/readyz")[0] == 200, 15.0, what="ready")
        # A Secret that is no good is written over.
        secret = api.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/ferrite-sidecar-tls")
        secret["data"].pop("ca.key")
        api.put(f"/api/v1/namespaces/{NAMESPACE}/secrets/ferrite-sidecar-tls", secret)
        with Webhook("--self-signed", "ferrite-sidecar-tls", "--shutdown-delay", "0", "--service-account", api.folder,
                     env=api.environment) as hook:
            wait_until(lambda: hook.health("/readyz")[0] == 200, 15.0, what="ready")
        used = {method for method, _ in api.calls}
        expect(used, {"GET", "POST", "PUT", "PATCH"})
        for method, called in api.calls:
            expect_true(is_allowed(rules, method, called), f"{method} {called} is not allowed")
    finally:
        api.stop()
