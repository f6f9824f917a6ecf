"""ferritectl inject and uninject, as a person types them; what they make of a manifest is in ControlTests."""

import json
import os
import subprocess
import tempfile

from certificates import Authority
from runner import expect, expect_true, test
from servers import ferrite_binary, ferritectl_binary

PODS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "ControlTests", "Pods")
POD = """apiVersion: v1
kind: Pod
metadata: {name: app, annotations: {ferrite.io/sidecar-inject: "%s"}}
spec: {containers: [{name: app, image: app}]}
"""


def run(*words, text=None):
    done = subprocess.run([ferritectl_binary(), *words], input=text, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@test("inject: files, folders and standard input; what was done is told beside the manifests", once=True)
def _(t):
    folder = t.stack.enter_context(tempfile.TemporaryDirectory(prefix="ferrite-test-"))
    for name, text in (("a.yaml", POD % "true"), ("b.yml", "kind: Service\n"), ("c.txt", "[")):
        with open(os.path.join(folder, name), "w") as file:
            file.write(text)
    code, out, said = run("inject", "-f", folder)
    expect(code, 0)
    expect_true("name: ferrite-sidecar" in out and out.endswith("---\nkind: Service\n"), out)
    expect_true(said.startswith(f"{folder}/a.yaml:1: Pod/app: injected"), said)
    expect(run("inject", "-q", "-f", "-", text=out), (0, out, ""))
    code, out, said = run("inject", "-f", folder, "-o", "json")
    expect([item["kind"] for item in json.loads(out)["items"]], ["Pod", "Service"])
    code, out, said = run("uninject", "-f", "-", text=json.dumps(json.loads(out)["items"][0]))
    expect_true("uninjected" in said and "initContainers" not in json.loads(out)["spec"], out)


@test("inject: what cannot be is told with its place, and nothing is written", once=True)
def _(t):
    code, out, said = run("inject", "-f", "-", text=POD % "true" + "---\n" + POD % "yes")
    expect((code, out), (65, ""))
    expect_true('-:5: Pod/app: bad-annotation: ferrite.io/sidecar-inject: "yes"' in said, said)
    for words, text, ends_with in (
            (("-f", "-"), "a: [", 65), (("-f", "/no/such"), None, 66), ((), None, 64),
            (("-f", "-", "--memory", "12"), POD % "true", 64), (("-f", "-", "-o", "xml"), POD % "true", 64)):
        code, out, said = run("inject", *words, text=text)
        expect((code, out), (ends_with, ""), f"{words}: {said}")
    rollout = ("apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: r}\nspec: {template: {metadata: "
               "{annotations: {ferrite.io/sidecar-inject: 'true'}}, spec: {containers: [{name: a}]}}}\n")
    code, out, said = run("inject", "-f", "-", text=rollout)
    expect((code, out), (0, rollout))
    expect_true(said.startswith("-:1: Rollout/r: unknown-kind: ") and "argoproj.io/v1alpha1 Rollout" in said, said)
    workload = ("kind: Deployment\nmetadata: {annotations: {ferrite.io/sidecar-inject: 'true'}}\n"
                "spec: {template: {spec: {containers: [{name: a}]}}}\n")
    code, out, said = run("inject", "-f", "-", text=workload)
    expect((code, out), (0, workload))
    expect_true("put it into the template's metadata" in said, said)


@test("inject: byte order marks, JSON objects one after the other and tags, as kubectl takes them", once=True)
def _(t):
    folder = t.stack.enter_context(tempfile.TemporaryDirectory(prefix="ferrite-test-"))
    for name in ("a.yaml", "b.yaml"):
        with open(os.path.join(folder, name), "w") as file:
            file.write("\ufeff" + POD % "true")
    code, out, said = run("inject", "-f", folder)
    expect((code, out.count("name: ferrite-sidecar"), out.count("\ufeff")), (0, 2, 1), said)
    expect_true("\n---\napiVersion" in out, out)
    pod = {"kind": "Pod", "metadata": {"name": "a", "annotations": {"ferrite.io/sidecar-inject": "true"}},
           "spec": {"containers": [{"name": "a"}]}}
    text = json.dumps({"kind": "Service"}) + json.dumps(pod)
    code, out, said = run("inject", "-f", "-", text=text)
    expect((code, out[:21]), (0, '{"kind": "Service"}{\n'), said)
    expect_true("---" not in out and '"ferrite-sidecar"' in out, out)
    code, out, said = run("inject", "-q", "-f", "-", "-o", "yaml", text=text)
    expect((code, out.count("---\n")), (0, 2), out)
    # Another value than was there is not written, in whatever form; what is not touched is handed on.
    for value in ("!!int x", '"\\ufeffx"', "!own 1"):
        for asks, words, ends_with in (("true", (), 65), ("false", (), 0), ("false", ("-o", "json"), 65)):
            text = POD % asks + f"x:\n- {value}\n"
            code, out, said = run("inject", "-f", "-", *words, text=text)
            expect((code, out), (ends_with, text if ends_with == 0 else ""), said)
            expect("-:6: " in said, ends_with == 65, said)


@test("uninject: what has been changed since is left, and told", once=True)
def _(t):
    code, out, said = run("inject", "-q", "-f", "-", text=POD % "true")
    changed = out.replace("value: redis://127.0.0.1:6379", "value: redis://mine:6379").replace('"9091"', '"8080"', 1)
    code, out, said = run("uninject", "-f", "-", text=changed)
    expect(code, 0, said)
    expect_true("redis://mine:6379" in out and 'prometheus.io/port: "8080"' in out, out)
    expect_true("prometheus.io/path" not in out and "ferrite-sidecar" not in out, out)
    expect_true("uninjected: container app: its REDIS_URL has been changed since, and is left; " in said, said)


@test("inject: the daemon takes what it is given, from whatever annotations", once=True)
def _(t):
    # What the Secrets of the pods would be mounted as.
    files = t.folder()
    Authority(files).sign(files, "DNS:sidecar")
    for name in sorted(os.listdir(PODS)):
        if name.endswith(".golden.json"):
            continue
        code, out, said = run("inject", "-f", os.path.join(PODS, name))
        expect(code, 0, said)
        spec = json.loads(out)["spec"]
        ours = [c for c in spec.get("initContainers", []) + spec["containers"] if c["name"] == "ferrite-sidecar"]
        expect(len(ours), 1, name)
        arguments = [argument.replace("$$", "$").replace("/etc/ferrite/tls", files) for argument in ours[0]["args"]]
        environment = {"PATH": os.environ["PATH"], **{v["name"]: "secret" for v in ours[0].get("env", [])}}
        done = subprocess.run([ferrite_binary(), *arguments, "--check-config"], env=environment,
                              capture_output=True, text=True)
        expect(done.returncode, 0, f"{name}: {done.stderr}")
        expect_true("secret" not in done.stdout, f"{name}: {done.stdout}")


@test("inject: of the annotated example becomes the injected one", once=True)
def _(t):
    examples = os.path.join(PODS, "..", "..", "..", "deploy", "examples")
    code, out, _ = run("inject", "-f", os.path.join(examples, "annotated.yaml"))
    with open(os.path.join(examples, "injected.yaml")) as file:
        expect((code, out), (0, file.read()), "ferritectl inject -q -f annotated.yaml > injected.yaml")


@test("inject: what is not touched keeps every byte, with whatever ends of lines", once=True)
def _(t):
    for end in ("\n", "\r\n"):
        for text in (f"kind: ConfigMap{end}---{end}kind: Service{end}", f"---{end}kind: A{end}...{end}---{end}kind: B",
                     f"# a{end}{end}---{end}---{end}"):
            for command in ("inject", "uninject"):
                words = [ferritectl_binary(), command, "-f", "-"]
                done = subprocess.run(words, input=text.encode(), capture_output=True)
                expect((done.returncode, done.stdout.decode()), (0, text), command)
