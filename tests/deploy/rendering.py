"""What the chart and the overlays render, and Kubernetes' judgement about it; for manifests.py."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CHART = ROOT / "deploy/helm/clerk-authz"
EXAMPLES = ROOT / "deploy/helm/examples"
OPERATOR = ROOT / ".tools/operator"
OVERLAYS = ROOT / "deploy/kustomize/overlays"
# The oldest and the newest that the chart is for.
KUBERNETES = ["1.30", "1.37"]
KEY = "pk_live_Y2xlcmsuZXhhbXBsZS5jb20k"
LEAST = {"clerk": {"publishableKey": KEY}}


def found(name, own):
    """A tool of the project's, else the machine's."""
    return str(own) if own.exists() else shutil.which(name)


HELM = found("helm", ROOT / ".tools/bin/helm")
KUBECTL = found("kubectl", Path(sys.executable).parent / "kubectl")


def helm(command, *values):
    """Runs helm with `values`, each a file or what stands in one."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for index, value in enumerate(values):
            if isinstance(value, dict):
                file = Path(folder) / f"{index}.yaml"
                file.write_text(yaml.safe_dump(value))
                value = file
            files += ["--values", str(value)]
        return subprocess.run([HELM, *command, *files], capture_output=True, text=True)


def render(*values, version=KUBERNETES[-1]):
    """The documents, by kind and name."""
    ran = helm(
        ["template", "clerk-authz", str(CHART), "--namespace", "authz", "--kube-version", f"{version}.0"], *values)
    if ran.returncode != 0:
        raise AssertionError(ran.stderr)
    return documents(ran.stdout)


def documents(text):
    return {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all(text) if d}


def merged(base, over):
    out = dict(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(out.get(name), dict)
        out[name] = merged(out[name], value) if both else value
    return out


def deployment(all_documents):
    return next(d for (kind, _), d in all_documents.items() if kind == "Deployment")


def pod(all_documents):
    return deployment(all_documents)["spec"]["template"]["spec"]


def container(all_documents):
    (only,) = pod(all_documents)["containers"]
    return only


def environment(all_documents):
    """What the process is given, its ConfigMap included."""
    given = {}
    for source in container(all_documents).get("envFrom", []):
        given |= all_documents["ConfigMap", source["configMapRef"]["name"]]["data"]
    return given | {entry["name"]: entry["value"] for entry in container(all_documents).get("env", [])}


def strict(schema):
    """The same schema, in which a name that it does not know is wrong."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    out = {name: strict(part) for name, part in schema.items()}
    # Go's expressions may have this behind the beginning, Python's may not.
    if isinstance(schema.get("pattern"), str):
        out["pattern"] = re.sub(r"^\^\(\?i\)", "(?i)^", schema["pattern"])
    if schema.get("type") == "object" and "properties" in schema and "additionalProperties" not in schema:
        out["additionalProperties"] = False
    return out


def of_the_operator(kind):
    """The Prometheus Operator's schema of a kind of its own; none for the kinds of others."""
    file = OPERATOR / f"{kind.lower()}s.yaml"
    if not file.exists():
        return None
    (version,) = [v for v in yaml.safe_load(file.read_text())["spec"]["versions"] if v["name"] == "v1"]
    schema = version["schema"]["openAPIV3Schema"]
    # What every object has, which Kubernetes itself looks at.
    del schema["properties"]["metadata"]
    schema = strict(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def schema_problem(document, version):
    said = f"{document['kind']} {document['metadata']['name']}"
    own = of_the_operator(document["kind"])
    try:
        if own:
            jsonschema.validate(document, own)
        else:
            kubernetes_validate.validate(document, version, strict=True)
    except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
        return f"{said}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError:
        return f"{said}: there is no such kind"
    return None


ALL = merged(LEAST, {
    "replicaCount": 4,
    "clerk": {"existingSecret": "own", "secretKeys": {"secretKey": "a", "webhookSigningSecret": "b", "jwtKey": "c"},
              "audiences": ["api", "app"], "authorizedParties": ["https://a.example", "https://b.example"]},
    "store": {"kind": "postgres", "postgres": {"existingSecret": "store", "key": "url"}},
    "callers": '[[caller]]\nname = "billing"\nbearer_files = ["/run/secrets/clerk-authz-callers/billing"]\nrpcs = ["*"]\n',
    "callersSecret": "callers",
    "policy": {"version": 1, "routes": [{"name": "all", "path": "/**", "access": "signed_in"}]},
    "settings": {"CLERK_AUTHZ_CLOCK_SKEW": "3s", "CLERK_AUTHZ_RECONCILE_AT": "off", "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4317"},
    "otlp": {"existingSecret": "collector", "headersKey": "headers"},
    "autoscaling": {"enabled": True}, "serviceMonitor": {"enabled": True, "labels": {"release": "x"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "x"}},
    "image": {"digest": "sha256:" + "0" * 64}, "imagePullSecrets": [{"name": "pull"}],
    "podAnnotations": {"a": "b"}, "podLabels": {"c": "d"}, "nodeSelector": {"e": "f"},
    "tolerations": [{"key": "g", "operator": "Exists"}], "priorityClassName": "high",
    "affinity": {"nodeAffinity": {}}, "service": {"annotations": {"h": "i"}},
    "serviceAccount": {"annotations": {"j": "k"}},
    "extraVolumes": [{"name": "more", "emptyDir": {}}], "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    "networkPolicy": {"httpFrom": [{"podSelector": {}}], "extraEgress": [{"ports": [{"port": 4317, "protocol": "TCP"}]}]},
    "tls": {"secretName": "tls", "clientCAKey": "ca.crt"},
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
})
INSTANCES = f"""[[instance]]
name = "shop"
publishable_key = "{KEY}"
secret_key_file = "/run/secrets/clerk-authz/shop"
authorized_parties = ["https://shop.example.com"]
"""
CASES = {
    "postgres": [EXAMPLES / "postgres.yaml"],
    "sqlite": [EXAMPLES / "sqlite.yaml"],
    "no store": [LEAST],
    "everything": [ALL],
    "several instances": [{"clerk": {"instances": INSTANCES, "existingSecret": "own"}}],
}


def overlay(name):
    ran = subprocess.run([KUBECTL, "kustomize", str(OVERLAYS / name)], capture_output=True, text=True)
    if ran.returncode != 0:
        raise AssertionError(ran.stderr)
    return documents(ran.stdout)
