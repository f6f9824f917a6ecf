"""What deploy/ installs the injector with: kustomize and the Helm chart, rendered by their own tools and judged by
Kubernetes' own schemas."""

import itertools
import os
import re
import subprocess
import sys
import tempfile

import celpy
import helm_python
import kubernetes_validate
import yaml
from runner import expect, expect_true, test
from servers import ROOT, ferritectl_binary

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "ferrite-sidecar"
VERSIONS = ("1.29", kubernetes_validate.latest_version())
# Of others: their schemas are not Kubernetes' own.
FOREIGN = {"cert-manager.io/v1", "monitoring.coreos.com/v1"}


def kustomize(folder):
    kubectl = os.path.join(os.path.dirname(sys.executable), "kubectl")
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True)
    expect(done.returncode, 0, done.stderr)
    return [thing for thing in yaml.safe_load_all(done.stdout) if thing]


def render(values, name="ferrite-sidecar", namespace="ferrite-system"):
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        rendered = chart.render(values, name=name, namespace=namespace)
    return [thing for name, text in rendered.items() if name.endswith(".yaml")
            for thing in yaml.safe_load_all(text) if thing]


def validate(things):
    for thing in things:
        if thing["apiVersion"] not in FOREIGN:
            for version in VERSIONS:
                kubernetes_validate.validate(thing, version, strict=True)


def one(things, kind):
    found = [thing for thing in things if thing["kind"] == kind]
    expect(len(found), 1, kind)
    return found[0]


def arguments(deployment):
    return deployment["spec"]["template"]["spec"]["containers"][0]["args"]


def expect_coherent(things):
    """What must fit together for the API server to reach the webhook, and the webhook to keep its certificate."""
    deployment, service = one(things, "Deployment"), one(things, "Service")
    hook = one(things, "MutatingWebhookConfiguration")
    template = deployment["spec"]["template"]
    selected = service["spec"]["selector"].items()
    expect_true(selected <= template["metadata"]["labels"].items(), "the Service finds the pods")
    target = hook["webhooks"][0]["clientConfig"]["service"]
    expect((target["name"], target["namespace"]), (service["metadata"]["name"], service["metadata"]["namespace"]))
    container = template["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    expect((ports, service["spec"]["ports"][0]["targetPort"]), ({"webhook": 8443, "health": 8080}, "webhook"))
    namespaces = hook["webhooks"][0]["namespaceSelector"]["matchExpressions"][0]
    expect_true(service["metadata"]["namespace"] in namespaces["values"], "its own pods do not depend on it")
    given = dict(word.removeprefix("--").split("=", 1) for word in container["args"][1:])
    if "self-signed" in given:
        role = one(things, "Role")["rules"]
        expect([rule.get("resourceNames") for rule in role], [None, [given["self-signed"]]])
        expect(one(things, "ClusterRole")["rules"][0]["resourceNames"], [hook["metadata"]["name"]])
        expect((given["webhook-configuration"], given["service"]), (hook["metadata"]["name"], target["name"]))
    else:
        expect_true(not any(thing["kind"].endswith(("Role", "RoleBinding")) for thing in things), "no rights")
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        secrets = {volume["name"]: volume["secret"]["secretName"] for volume in template["spec"]["volumes"]}
        certificate = one([thing for thing in things if not thing.get("spec", {}).get("isCA")], "Certificate")
        expect((mounts["tls"], secrets["tls"]), (given["cert-dir"], certificate["spec"]["secretName"]))
        expect(hook["metadata"]["annotations"]["cert-manager.io/inject-ca-from"],
               f"{certificate['metadata']['namespace']}/{certificate['metadata']['name']}")
        expect_true(f"{target['name']}.{target['namespace']}.svc" in certificate["spec"]["dnsNames"], "its name")
    # What PodSecurity's restricted asks of it, as the namespace does.
    context, pod = container["securityContext"], template["spec"]["securityContext"]
    expect((pod["runAsNonRoot"], pod["seccompProfile"]["type"]), (True, "RuntimeDefault"))
    expect((context["allowPrivilegeEscalation"], context["capabilities"]), (False, {"drop": ["ALL"]}))


def expect_taken(args):
    """ferritectl knows all of it: it fails only at what is not there here."""
    done = subprocess.run([ferritectl_binary(), *args], capture_output=True, text=True, timeout=20,
                          env={k: v for k, v in os.environ.items() if not k.startswith("KUBERNETES_")})
    expect(done.returncode, 69, done.stderr)
    expect_true("KUBERNETES_SERVICE_HOST" in done.stderr or "cannot read" in done.stderr, done.stderr)


@test("kustomize: base and overlays are valid, fit together, and ferritectl takes what they give it", once=True)
def _(t):
    for name, policy in (("base", "Ignore"), ("overlays/fail-closed", "Fail"), ("overlays/cert-manager", "Ignore")):
        things = kustomize(DEPLOY / "kustomize" / name)
        validate(things)
        expect_coherent(things)
        expect(one(things, "MutatingWebhookConfiguration")["webhooks"][0]["failurePolicy"], policy)
        expect_taken(arguments(one(things, "Deployment")))


@test("seccomp: the DaemonSet is valid, hardened, and lays the one profile where pods name it", once=True)
def _(t):
    things = kustomize(DEPLOY / "seccomp")
    validate(things)
    profile = (DEPLOY / "seccomp" / "ferrite.json").read_text()
    expect(one(things, "ConfigMap")["data"], {"ferrite.json": profile})
    pod = one(things, "DaemonSet")["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    # With the hash of the content: another profile is another pod.
    expect(volumes["profile"]["configMap"]["name"], one(things, "ConfigMap")["metadata"]["name"])
    expect_true(re.fullmatch(r"ferrite-seccomp-\w+", volumes["profile"]["configMap"]["name"]), volumes["profile"])
    expect(pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}, set())
    expect(pod["automountServiceAccountToken"], False)
    for container in pod["initContainers"] + pod["containers"]:
        context = container["securityContext"]
        expect((context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"], context["capabilities"]),
               (False, True, {"drop": ["ALL"]}), container["name"])
        expect_true("privileged" not in context and "memory" in container["resources"]["limits"], container["name"])
    (copy,), (pause,) = pod["initContainers"], pod["containers"]
    expect((pause.get("volumeMounts"), pause["securityContext"]["runAsNonRoot"]), (None, True))
    with tempfile.TemporaryDirectory(prefix="ferrite-test-") as folder:
        # What the node's kubelet finds after the container has run, with its mounts in a folder.
        kubelet = "/var/lib/kubelet/seccomp"
        expect_true(volumes["profiles"]["hostPath"]["path"].startswith(kubelet), volumes["profiles"])
        host = folder + "/host" + volumes["profiles"]["hostPath"]["path"]
        given = os.path.join(folder, "given")
        os.makedirs(host)
        os.makedirs(given)
        command = copy["command"][-1]
        places = {mount["name"]: mount["mountPath"] for mount in copy["volumeMounts"]}
        for mount, place in ((places["profiles"], host), (places["profile"], given)):
            command = re.sub(rf"(?<=\s){mount}(?=/)", place, command)
        for text in (profile, profile + "\n"):
            with open(os.path.join(given, "ferrite.json"), "w") as file:
                file.write(text)
            subprocess.run([*copy["command"][:-1], command], check=True)
            with open(os.path.join(DEPLOY, "..", "docs", "kubernetes.md")) as file:
                named = re.search(r'ferrite.io/sidecar-seccomp: "(.*)"', file.read())[1]
            with open(os.path.join(folder + "/host" + kubelet, named)) as file:
                expect(file.read(), text)
            expect(os.listdir(host), ["ferrite.json"])


@test("docs/kubernetes.md names files and folders of deploy/ that there are, and kustomizations for kubectl",
      once=True)
def _(t):
    with open(ROOT / "docs" / "kubernetes.md") as file:
        text = file.read()
    for path in sorted(set(re.findall(r"(?<![\w./])(?:\.\./)?(deploy/[\w*/.-]+[\w/])", text))):
        expect_true(list(ROOT.glob(path)), f"{path} is not there")
    for path in re.findall(r"kubectl (?:apply|delete) -k (deploy/\S+?)[`\s]", text):
        expect_true((ROOT / path / "kustomization.yaml").exists(), f"{path} is no kustomization")


@test("grafana: the command of docs/kubernetes.md makes a labelled ConfigMap of the dashboards", once=True)
def _(t):
    with open(ROOT / "docs" / "kubernetes.md") as file:
        command = re.search(r"kubectl \S+ \S+ create configmap .*?(?= \| kubectl apply)", file.read(), re.S)[0]
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, "PATH": path})
    expect(done.returncode, 0, done.stderr)
    things = list(yaml.safe_load_all(done.stdout))
    validate(things)
    expect(one(things, "ConfigMap")["metadata"]["labels"], {"grafana_dashboard": "1"})
    written = {path.name: path.read_text() for path in (DEPLOY / "grafana").glob("*.json")}
    expect(one(things, "ConfigMap")["data"] == written, True, "the files as they are")


COMPONENTS = ("fail-closed", "cert-manager", "prometheus-operator", "network-policy")


@test("kustomize: the components can be added to the base in every mixture and order, and fit together", once=True)
def _(t):
    mixtures = [mixture for count in range(5) for mixture in itertools.combinations(COMPONENTS, count)]
    for mixture in [*mixtures, COMPONENTS[::-1], ("cert-manager", "fail-closed")]:
        things = mixed(mixture)
        validate(things)
        expect_coherent(things)
        expect_taken(arguments(one(things, "Deployment")))
        hook = one(things, "MutatingWebhookConfiguration")["webhooks"][0]
        expect(hook["failurePolicy"], "Fail" if "fail-closed" in mixture else "Ignore", mixture)
        kinds = [thing["kind"] for thing in things]
        for kind, component, count in (("PodMonitor", "prometheus-operator", 2), ("NetworkPolicy", "network-policy", 1),
                                       ("Certificate", "cert-manager", 2), ("Issuer", "cert-manager", 2)):
            expect(kinds.count(kind), count * (component in mixture), f"{kind} of {mixture}")
            expect({thing["metadata"]["namespace"] for thing in things if thing["kind"] == kind} - {"ferrite-system"},
                   set(), kind)
        for policy in (thing for thing in things if thing["kind"] == "NetworkPolicy"):
            ports = policy["spec"]["ingress"][0]["ports"]
            expect([port["port"] for port in ports], ["webhook", "health"])
    t.note(f"{len(mixtures)} mixtures")


def mixed(components, **more):
    """What a kustomization of the base and these components gives."""
    with tempfile.TemporaryDirectory(prefix="ferrite-test-", dir=ROOT / ".build") as folder:
        with open(os.path.join(folder, "kustomization.yaml"), "w") as file:
            yaml.safe_dump({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
                            "resources": [os.path.relpath(DEPLOY / "kustomize" / "base", folder)],
                            "components": [os.path.relpath(DEPLOY / "kustomize" / "components" / name, folder)
                                           for name in components], **more}, file)
        return kustomize(folder)


@test("kustomize: a patch of the arguments, as docs/kubernetes.md has it, holds whatever the components", once=True)
def _(t):
    with open(ROOT / "docs" / "kubernetes.md") as file:
        patches = yaml.safe_load(re.search(r"```yaml\n(patches:\n.*?)```", file.read(), re.S)[1])
    for components in ((), ("cert-manager",), COMPONENTS):
        given = arguments(one(mixed(components, **patches), "Deployment"))
        expect(given[-1], "--upstream=redis.cache.svc:6379", components)
        expect_taken(given)


@test("kustomize: each overlay is the base and its component", once=True)
def _(t):
    for name in ("fail-closed", "cert-manager"):
        expect(kustomize(DEPLOY / "kustomize" / "overlays" / name) == mixed([name]), True, name)


@test("helm: lint has nothing to say, and every mixture of values gives what is valid and fits together", once=True)
def _(t):
    for message in helm_python.lint(CHART)["messages"]:
        # An icon is all that it would like to see.
        expect_true("icon is recommended" in str(message), message)
    choices = {
        "replicas": (1, 2), "webhook.failurePolicy": ("Ignore", "Fail"),
        "webhook.certificate": ("self-signed", "cert-manager"), "podMonitor.enabled": (False, True),
        "networkPolicy.enabled": (False, True), "podAnnotations": (None, {"a": "b"}),
        "webhook.certManager": (None, {"issuerRef": {"kind": "ClusterIssuer", "name": "internal"}}),
    }
    count = 0
    for chosen in itertools.product(*choices.values()):
        values = {}
        for path, value in zip(choices, chosen):
            at = values
            *way, last = path.split(".")
            for step in way:
                at = at.setdefault(step, {})
            at[last] = value
        things = render(values, *[("ferrite-sidecar", "ferrite-system"), ("other", "elsewhere")][count % 2])
        validate(things)
        expect_coherent(things)
        kinds = [thing["kind"] for thing in things]
        expect(kinds.count("PodDisruptionBudget"), int(values["replicas"] > 1))
        expect(kinds.count("PodMonitor"), 2 * values["podMonitor"]["enabled"])
        expect(kinds.count("NetworkPolicy"), int(values["networkPolicy"]["enabled"]))
        count += 1
    expect_taken(arguments(one(render({}), "Deployment")))
    expect_taken(arguments(one(render({"webhook": {"certificate": "cert-manager"}}), "Deployment")))
    t.note(f"{count} mixtures of values")


@test("helm: a value that is no good is refused by the schema, naming it", once=True)
def _(t):
    for values, name in (({"replicas": 0}, "replicas"), ({"webhook": {"failurePolicy": "Maybe"}}, "failurePolicy"),
                         ({"webook": {}}, "webook"), ({"podAnnotations": {"a": 1}}, "podAnnotations"),
                         ({"podDisruptionBudget": {"maxUnavailable": "one"}}, "maxUnavailable"),
                         ({"podDisruptionBudget": {"maxUnavailable": -1}}, "maxUnavailable"),
                         ({"podDisruptionBudget": {"maxUnavailable": None}}, "maxUnavailable"),
                         ({"nodeSelector": {"a": 1}}, "nodeSelector"),
                         ({"podMonitor": {"labels": {"a": 1}}}, "labels"),
                         ({"defaults": {"upstream": "redis"}}, "upstream"),
                         ({"defaults": {"memory": "much"}}, "memory")):
        try:
            render(values)
        except helm_python.HelmError as error:
            expect_true(name in str(error), str(error))
        else:
            expect_true(False, f"{values} were taken")


DIGEST = "sha256:" + "0123456789abcdef" * 4
# Of what stands in a value of the chart: what is good, and what is not.
ARGUMENTS = {
    "memory": ("48Mi 64Mi 1Gi 0.5Gi 1Ti 128M 51M 50331648 49152Ki 50332k 0.05Gi 48.5Mi".split(),
               "47Mi 47.9Mi 16Mi 0Mi 64mb 64MB 50331647 50.3M 50331k 49151Ki 2Ti 1.1Ti 0.04Gi 128 -1Gi 1GB Mi".split()),
    "upstream": (["redis:6379", "redis.cache.svc:1", "redis:65535", "redis:06379", "rediss://redis:6380", "_a.b-c:1",
                  "10.0.0.1:6379", "redis.svc.:1", "a_:1", "1a:1", "a.0b:1", "l" * 63 + ":1", "[::1]:1",
                  "[fd00::1:2]:6379", "localhost:6380", "127.0.0.2:6379", "[::2]:6379",
                  "rediss://[1:2:3:4:5:6:7:8]:1", "Redis:1"],
                 ["redis", "redis:0", "redis:65536", "redis:99999", "redis:123456789012345678901", "redis:", ":6379",
                  "redis://redis:6379", "user:password@redis:6379", "a b:1", "-a:1", "redis:6379/0", "[:::1]:1",
                  "[1:2]:1", "[::1::2]:1", "[]:1", "[1:2:3:4:5:6:7:8:9]:1", ".".join(["a" * 63] * 4) + ":1",
                  "h..x:1", "a-:1", "a.-b:1", "h..:1", "999.1.1.1:6379", "127.1:6379", "1:1", "0x7f:1", "10.0.0.01:1",
                  "1.2.3.4.:1", "l" * 64 + ":1", "localhost:6379", "rediss://LOCALHOST.:6379", "127.0.0.1:06379",
                  "[::1]:6379", "[0:0:0:0:0:0:0:1]:6379", "[::]:6379", "[::ffff:7f00:1]:6379"]),
    "cpuRequest": ("100m 1m 0.5 1 2.25 0.001".split(), "0 0m 0.0 -1 100mm 1x m".split()),
    "image": (["ferrite", "a/b:1", "registry.example:5000/a/b_c:1.0-rc1", "localhost:5000/a", "localhost/a",
               "Host.example/a", f"r.example/a@{DIGEST}", f"a:1@{DIGEST}", "[::1]:5000/x:1", "a__b--c.d:_X", "r:1/a",
               "a_b.c/d", "x:" + "t" * 128, "r.example/" + "a" * 245],
              ["A/b", "a:b:c", "a b", "-a", "/a", "a/", "a@1", "a:", "https://r.example/a", "a//b", "-r.example/a",
               "a/B", "a@:", "repo:-x", "x:" + "t" * 129, "x@sha256:zz", f"x@{DIGEST}0", "a..b", "a.-b", "a___b", "a_",
               "r..example/a", "r.example:/a", "r_1.example/A", "[]/a", "LOCAL/x", "r.example/" + "a" * 246]),
}


def refusal(values):
    """What helm install and helm template say of them; None where they take them."""
    try:
        render(values)
    except helm_python.HelmError as error:
        return str(error)
    return None


def linted(values):
    return "".join(helm_python.lint(CHART, values)["errors"])


@test("helm: the chart takes nothing that the webhook would not start with, and says what it would", once=True)
def _(t):
    options = {"memory": "--memory", "upstream": "--upstream", "cpuRequest": "--cpu-request", "image": "--image"}
    count = 0
    for name, (good, bad) in ARGUMENTS.items():
        for value, is_good in [*((value, True) for value in good), *((value, False) for value in bad)]:
            done = subprocess.run([ferritectl_binary(), "webhook", "--cert-dir=/nowhere", f"{options[name]}={value}"],
                                  capture_output=True, text=True, timeout=20)
            expect(done.returncode, 69 if is_good else 64, f"{name} {value}: {done.stderr}")
            said = refusal({"defaults": {name: value}})
            expect(said is None, is_good, f"{name} {value}: {said}")
            if not is_good:
                expect_true(name in said and value in said, said)
            count += 1
    t.note(f"{count} values")


@test("helm: what is not as the webhook wants it is refused with a sentence that has a good value", once=True)
def _(t):
    for name, value, hint in (("memory", "32Mi", "a size from 48Mi to 1Ti, e.g. 128Mi"),
                              ("upstream", "redis:70000", "a port from 1 to 65535, e.g. redis.cache.svc:6379"),
                              ("cpuRequest", "0m", "an amount of CPU, e.g. 100m")):
        sentence = f"defaults.{name}: {value} cannot be: use {hint}"
        expect_true(sentence in refusal({"defaults": {name: value}}), sentence)
        expect_true(sentence in linted({"defaults": {name: value}}), sentence)
    expect_true("'/defaults/memory': 'much'" in linted({"defaults": {"memory": "much"}}), "lint reads the schema")
    # A null takes the chart's own value away, and an option would be without one.
    for group, names in (("defaults", ("memory", "upstream", "cpuRequest")),
                         ("webhook", ("shutdownDelaySeconds", "failurePolicy", "certificate", "timeoutSeconds"))):
        for name in names:
            expect_true(name in refusal({group: {name: None}}), name)
        expect_true(group in refusal({group: None}), group)


@test("helm: a PodMonitor's own labels are instead of the chart's, each once", once=True)
def _(t):
    values = {"podMonitor": {"enabled": True, "labels": {"app.kubernetes.io/name": "x", "release": "prometheus"}}}
    with helm_python.Chart.load(CHART) as chart:
        text = chart.render(values, name="ferrite-sidecar", namespace="n")
    for name, text in text.items():
        if name.endswith("podmonitor.yaml"):
            expect(text.count("    app.kubernetes.io/name: x\n"), 2)
            labels = next(yaml.safe_load_all(text))["metadata"]["labels"]
            expect([labels["app.kubernetes.io/name"], labels["release"]], ["x", "prometheus"])
            expect(text.split("spec:")[0].count("app.kubernetes.io/name"), 1)


@test("helm: an image by its digest, or its tag", once=True)
def _(t):
    for values, wanted in (({"digest": DIGEST}, f"@{DIGEST}"), ({"tag": "1"}, ":1"), ({}, ":0.1.0")):
        container = one(render({"image": values}), "Deployment")["spec"]["template"]["spec"]["containers"][0]
        expect(container["image"], f"ferritelabs/ferrite-webhook{wanted}")


@test("only pods that ask reach the webhook: the match condition, evaluated", once=True)
def _(t):
    hook = one(kustomize(DEPLOY / "kustomize" / "base"), "MutatingWebhookConfiguration")["webhooks"][0]
    environment = celpy.Environment()
    program = environment.program(environment.compile(hook["matchConditions"][0]["expression"]))
    for annotations, asks in (
            ({"ferrite.io/sidecar-inject": "true"}, True), ({"ferrite.dev/sidecar-inject": "x"}, True),
            ({"ferrite.io/sidecar-memory": "64Mi"}, False), ({}, False), (None, False)):
        metadata = {"name": "p"} if annotations is None else {"name": "p", "annotations": annotations}
        found = program.evaluate({"object": celpy.json_to_cel({"metadata": metadata})})
        expect(bool(found), asks, str(annotations))


@test("helm and kustomize install the same", once=True)
def _(t):
    for overlay, values in (("base", {}), ("overlays/cert-manager", {"webhook": {"certificate": "cert-manager"}})):
        ours = {thing["kind"]: thing for thing in kustomize(DEPLOY / "kustomize" / overlay)}
        theirs = {thing["kind"]: thing for thing in render(values)}
        for things in (ours, theirs):
            things.pop("Certificate", None)
        expect(set(ours) - {"Namespace"}, set(theirs))
        for kind in ("MutatingWebhookConfiguration", "Service", "PodDisruptionBudget", "Role", "ClusterRole"):
            if kind in ours:
                for part in ("webhooks", "rules"):
                    expect(theirs[kind].get(part), ours[kind].get(part), kind)
        pods = [thing["Deployment"]["spec"]["template"]["spec"] for thing in (ours, theirs)]
        for pod in pods:
            pod["containers"][0].pop("args")
            pod["containers"][0].pop("imagePullPolicy", None)
            pod.pop("topologySpreadConstraints")
        expect(pods[1], pods[0])
