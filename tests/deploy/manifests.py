"""Renders the chart and the overlays, and holds what comes out to Kubernetes' own schemas, to each other,
and to the service itself, which is asked whether it takes these settings.

    .venv/bin/python tests/deploy/manifests.py [path of clerk-authz]

Prints a line per part and, last, `N passed, N failed, N skipped`. A tool that is not there is named and
its part skipped; with CI=true that is a failure.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import yaml

for folder in ["tests/languages", "scripts"]:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / folder))
from certificates import Authority  # noqa: E402
from harness import BINARY, ROOT, check, run_parts  # noqa: E402
from rendering import (  # noqa: E402
    ALL, CASES, CHART, EXAMPLES, HELM, INSTANCES, KUBECTL, KUBERNETES, LEAST, OPERATOR,
    container, deployment, documents, environment, helm, merged, overlay, pod, render, schema_problem,
)


def valid(suite):
    for name, values in CASES.items():
        lint = helm(["lint", "--strict", str(CHART)], *values)
        check(suite, f"{name}: helm lint", lint.returncode == 0, lint.stdout + lint.stderr)
        for version in KUBERNETES:
            rendered = render(*values, version=version)
            problems = [problem for d in rendered.values() if (problem := schema_problem(d, version))]
            check(suite, f"{name}: by the schemas of Kubernetes {version}", rendered and not problems, problems)
    broken = render(LEAST)
    deployment(broken)["spec"]["replica"] = 2
    check(suite, "a slip of the pen is seen", schema_problem(deployment(broken), KUBERNETES[-1]))
    monitor = render(LEAST, {"serviceMonitor": {"enabled": True}})["ServiceMonitor", "clerk-authz"]
    check(suite, "a ServiceMonitor is one by its operator's schema", OPERATOR.exists() and not schema_problem(monitor, KUBERNETES[-1]))
    monitor["spec"]["endpoints"][0]["pathh"] = "/metrics"
    check(suite, "and a slip in it is seen", schema_problem(monitor, KUBERNETES[-1]))
    rule = render(LEAST, {"prometheusRule": {"enabled": True}})["PrometheusRule", "clerk-authz"]
    check(suite, "a PrometheusRule is one by its operator's schema", not schema_problem(rule, KUBERNETES[-1]), schema_problem(rule, KUBERNETES[-1]))
    rule["spec"]["groups"][0]["rules"][0]["exprr"] = "1"
    check(suite, "and a slip in it is seen too", schema_problem(rule, KUBERNETES[-1]))
    check(suite, "a kind that is not there is seen", schema_problem({"apiVersion": "v1", "kind": "Podd", "metadata": {"name": "x"}}, KUBERNETES[-1]))


def hardened(suite):
    for name, values in CASES.items():
        rendered = render(*values)
        its_pod, its_container = pod(rendered), container(rendered)
        context = its_container["securityContext"]
        check(suite, f"{name}: no rights, no root, nothing to write to", (
            context == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
            and its_pod["securityContext"]["runAsNonRoot"] is True
            and its_pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            and its_pod["automountServiceAccountToken"] is False
        ), (context, its_pod["securityContext"]))
        secrets = [v for v in its_pod["volumes"] if "secret" in v]
        mounted = {m["name"]: m for m in its_container["volumeMounts"]}
        check(suite, f"{name}: secrets are files that its user reads, and no variable", (
            all(v["secret"]["defaultMode"] == 0o440 and mounted[v["name"]]["readOnly"] for v in secrets)
            and not any("valueFrom" in entry for entry in its_container["env"])
            and "envFrom" not in its_container
        ), secrets)
        check(suite, f"{name}: what is mounted is a volume, and the other way round",
              {v["name"] for v in its_pod["volumes"]} == set(mounted), (its_pod["volumes"], mounted))
        names = [entry["name"] for entry in its_container["env"]]
        check(suite, f"{name}: no variable is given twice", len(names) == len(set(names)), names)


def probes(suite):
    source = (ROOT / "src/door/grpc/health.rs").read_text()
    constants = dict(re.findall(r'pub const (\w+_NAME): &str = "([^"]+)"', source))
    probed = container(render(LEAST))
    said = {kind: probed[f"{kind}Probe"]["grpc"] for kind in ["startup", "liveness", "readiness"]}
    check(suite, "ready asks for the service", said["readiness"] == {"port": 50051, "service": constants["SERVICE_NAME"]}, said)
    for kind in ["startup", "liveness"]:
        # An outage of Clerk must not restart anything.
        check(suite, f"{kind} asks for the process", said[kind] == {"port": 50051, "service": constants["LIVENESS_NAME"]}, said)
    # Kubelet's probes over gRPC speak no TLS.
    encrypted = render(LEAST, {"tls": {"secretName": "tls"}, "serviceMonitor": {"enabled": True}})
    for kind, path in [("startup", "/livez"), ("liveness", "/livez"), ("readiness", "/readyz")]:
        probe = container(encrypted)[f"{kind}Probe"]
        check(suite, f"{kind} asks over HTTPS where there is TLS",
              "grpc" not in probe and probe["httpGet"] == {"scheme": "HTTPS", "port": "http", "path": path}, probe)
    monitor = encrypted["ServiceMonitor", "clerk-authz"]["spec"]["endpoints"][0]
    check(suite, "Prometheus asks over HTTPS then", monitor["scheme"] == "https", monitor)
    given = environment(encrypted)
    mounts = {m["name"]: m["mountPath"] for m in container(encrypted)["volumeMounts"]}
    check(suite, "the files are where they are looked for",
          given["CLERK_AUTHZ_TLS_CERT"] == f"{mounts['tls']}/tls.crt" and given["CLERK_AUTHZ_TLS_KEY"] == f"{mounts['tls']}/tls.key"
          and "CLERK_AUTHZ_TLS_CLIENT_CA" not in given, (given, mounts))
    given = environment(render(LEAST, {"tls": {"secretName": "tls", "clientCAKey": "own.crt"}}))
    check(suite, "callers are asked where an authority is named",
          given["CLERK_AUTHZ_TLS_CLIENT_CA"] == f"{mounts['tls']}/own.crt", given)
    ports = {port["name"]: port["containerPort"] for port in probed["ports"]}
    given = environment(render(LEAST))
    listens = {"grpc": given["CLERK_AUTHZ_GRPC_ADDR"], "http": given["CLERK_AUTHZ_HTTP_ADDR"]}
    check(suite, "it listens where it is asked", listens == {name: f"0.0.0.0:{port}" for name, port in ports.items()}, listens)


def switches(suite):
    def kinds(*values):
        return {kind for kind, _ in render(*values)}

    def switch(name, kind, off, on):
        check(suite, f"{name}: off", kind not in kinds(LEAST, off), kind)
        check(suite, f"{name}: on", kind in kinds(LEAST, on), kind)

    several = {"replicaCount": 2}
    switch("autoscaling.enabled", "HorizontalPodAutoscaler", {}, {"autoscaling": {"enabled": True}})
    switch("podDisruptionBudget.enabled", "PodDisruptionBudget", {**several, "podDisruptionBudget": {"enabled": False}}, several)
    switch("a budget needs several replicas", "PodDisruptionBudget", {"replicaCount": 1}, several)
    switch("networkPolicy.enabled", "NetworkPolicy", {"networkPolicy": {"enabled": False}}, {})
    switch("serviceMonitor.enabled", "ServiceMonitor", {}, {"serviceMonitor": {"enabled": True}})
    switch("prometheusRule.enabled", "PrometheusRule", {}, {"prometheusRule": {"enabled": True}})
    switch("serviceAccount.create", "ServiceAccount", {"serviceAccount": {"create": False, "name": "own"}}, {})
    for name, values, key in [
        ("policy", {"policy": {"version": 1}}, "policy.yaml"), ("clerk.instances", {}, "instances.toml"),
        ("callers", {}, "callers.toml"),
    ]:
        off = LEAST if name != "clerk.instances" else {"clerk": {"instances": INSTANCES}}
        there = key in render(off, values)["ConfigMap", "clerk-authz"]["data"]
        check(suite, f"{name}: on", there, key)
        check(suite, f"{name}: off", key == "callers.toml" or key not in render(LEAST)["ConfigMap", "clerk-authz"]["data"], key)
    callers = tomllib.loads(render(LEAST)["ConfigMap", "clerk-authz"]["data"]["callers.toml"])
    check(suite, "by default nobody asks about others without a token", (
        set(callers) == {"anyone"} and "any_user" not in callers["anyone"]
        and not {"*", "SyncUser", "GetUser", "WatchUsers"} & set(callers["anyone"]["rpcs"])), callers)
    its_secret = next(v for v in pod(render(LEAST, {"callersSecret": "own"}))["volumes"] if v["name"] == "callers-secrets")
    check(suite, "callersSecret", its_secret["secret"]["secretName"] == "own", its_secret)
    volumes = {v["name"]: v.get("secret") for v in pod(render(ALL))["volumes"]}
    given = environment(render(ALL))["OTEL_EXPORTER_OTLP_HEADERS_FILE"]
    check(suite, "otlp.existingSecret: on", volumes["otlp"]["secretName"] == "collector" and given.endswith("-otlp/headers"), (volumes, given))
    check(suite, "otlp.existingSecret: off", (
        "otlp" not in {v["name"] for v in pod(render(LEAST))["volumes"]}
        and "OTEL_EXPORTER_OTLP_HEADERS_FILE" not in environment(render(LEAST))))
    sqlite = {"replicaCount": 1, "store": {"kind": "sqlite"}}
    switch("store.sqlite.existingClaim", "PersistentVolumeClaim",
           merged(sqlite, {"store": {"sqlite": {"existingClaim": "own"}}}), sqlite)

    check(suite, "autoscaling decides how many", "replicas" not in deployment(render(LEAST, {"autoscaling": {"enabled": True}}))["spec"])
    check(suite, "replicaCount does without it", deployment(render(LEAST, {"replicaCount": 5}))["spec"]["replicas"] == 5)
    headless = ("Service", "clerk-authz-headless")
    check(suite, "service.headless: on", render(LEAST)[headless]["spec"]["clusterIP"] == "None")
    check(suite, "service.headless: off", headless not in render(LEAST, {"service": {"headless": False}}))
    strategy = deployment(render(LEAST, sqlite))["spec"]["strategy"]
    check(suite, "SQLite is never open twice", strategy == {"type": "Recreate"}, strategy)
    strategy = deployment(render(LEAST, {"maxSurge": 2}))["spec"]["strategy"]["rollingUpdate"]
    check(suite, "others come before the old ones go", strategy == {"maxUnavailable": 0, "maxSurge": 2}, strategy)
    claim = next(v for v in pod(render(LEAST, merged(sqlite, {"store": {"sqlite": {"existingClaim": "own"}}})))["volumes"] if v["name"] == "state")
    check(suite, "a claim that is there is used", claim["persistentVolumeClaim"]["claimName"] == "own", claim)
    image = container(render(LEAST, {"image": {"tag": "1.2.3"}}))["image"]
    check(suite, "image.tag", image.endswith("/clerk-authz:1.2.3"), image)
    digest = "sha256:" + "a" * 64
    image = container(render(LEAST, {"image": {"digest": digest, "tag": "1.2.3"}}))["image"]
    check(suite, "a digest beats a tag", image.endswith(f"/clerk-authz@{digest}"), image)
    pause = {"leavePauseSeconds": 20, "drainTimeoutSeconds": 30, "terminationGracePeriodSeconds": 62}
    rendered = render(LEAST, pause)
    check(suite, "the pause before the end", (
        environment(rendered)["CLERK_AUTHZ_DRAIN_PAUSE"] == "20s"
        and environment(rendered)["CLERK_AUTHZ_DRAIN_TIMEOUT"] == "30s"
        and "lifecycle" not in container(rendered)
        and pod(rendered)["terminationGracePeriodSeconds"] == 62))
    check(suite, "logs are JSON, unless said otherwise", (
        environment(render(LEAST))["CLERK_AUTHZ_LOG_FORMAT"] == "json"
        and environment(render(LEAST, {"settings": {"CLERK_AUTHZ_LOG_FORMAT": "text"}}))["CLERK_AUTHZ_LOG_FORMAT"] == "text"))
    monitor = next(d for (kind, _), d in render(ALL).items() if kind == "ServiceMonitor")
    rule = next(d for (kind, _), d in render(ALL).items() if kind == "PrometheusRule")
    # The chart cannot read what stands outside it, and so has a copy.
    alerts = ROOT / "deploy/prometheus/alerts.yaml"
    check(suite, "the chart's copy of the alerts is deploy/prometheus/alerts.yaml",
          (CHART / "files/alerts.yaml").read_text() == alerts.read_text(), "copy it anew")
    check(suite, "and all of them are in its PrometheusRule", rule["spec"] == yaml.safe_load(alerts.read_text()), rule["spec"])
    check(suite, "its labels are there to select it by", rule["metadata"]["labels"]["release"] == "x", rule["metadata"])
    services = [d for (kind, _), d in render(ALL).items() if kind == "Service"]
    selected = [s["metadata"]["name"] for s in services if selects(monitor["spec"]["selector"], s["metadata"]["labels"])]
    check(suite, "each replica is counted once", selected == ["clerk-authz"], selected)
    check(suite, "by a port that is there", monitor["spec"]["endpoints"][0]["port"] in [p["name"] for p in services[0]["spec"]["ports"]])
    for replicas, surge, expected in [(1, 1, 450), (2, 1, 300), (8, 2, 90)]:
        budget = environment(render(EXAMPLES / "postgres.yaml", {"replicaCount": replicas, "maxSurge": surge}))["CLERK_AUTHZ_API_BUDGET"]
        check(suite, f"the budget of each of {replicas} replicas", budget == str(expected), budget)
    budget = environment(render(ALL))["CLERK_AUTHZ_API_BUDGET"]
    check(suite, "the budget counts what autoscaling may make", budget == str(900 // 7), budget)
    check(suite, "one replica on SQLite has all of it", environment(render(EXAMPLES / "sqlite.yaml"))["CLERK_AUTHZ_API_BUDGET"] == "900")


def selects(selector, labels):
    return (
        all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
        and all(rule["operator"] == "DoesNotExist" and rule["key"] not in labels for rule in selector.get("matchExpressions", []))
    )


def selectors(suite):
    for name, values in CASES.items():
        rendered = render(*values)
        labels = deployment(rendered)["spec"]["template"]["metadata"]["labels"]
        for (kind, named), document in rendered.items():
            spec = document.get("spec", {})
            selector = {
                "Deployment": spec.get("selector"), "PodDisruptionBudget": spec.get("selector"),
                "NetworkPolicy": spec.get("podSelector"), "Service": {"matchLabels": spec.get("selector")},
            }.get(kind)
            if selector:
                check(suite, f"{name}: {kind} {named} is about our pods", selector["matchLabels"] and selects(selector, labels), selector)


def network(suite):
    def policy(more):
        return next(d for (kind, _), d in render(EXAMPLES / "postgres.yaml", {"networkPolicy": more}).items() if kind == "NetworkPolicy")["spec"]

    closed = policy({"grpcFrom": [], "httpFrom": []})
    check(suite, "no peers is nobody, never everybody", closed["ingress"] == [] and "Ingress" in closed["policyTypes"], closed)
    # In Kubernetes a rule without `from` lets everybody in.
    for more in [{"grpcFrom": []}, {"httpFrom": []}, {}]:
        rules = policy(more)["ingress"]
        check(suite, f"each rule says who: {more}", rules and all(rule["from"] and rule["ports"] for rule in rules), rules)
    ports = {port["port"] for rule in policy({"postgresPort": 6432})["egress"] for port in rule["ports"]}
    check(suite, "the way out: names, Clerk, the database", ports == {53, 443, 6432}, ports)
    policies = [d for (kind, _), d in render(LEAST).items() if kind == "NetworkPolicy"]
    check(suite, "by default the namespace's own pods ask", policies[0]["spec"]["ingress"] == [
        {"ports": [{"port": "grpc", "protocol": "TCP"}], "from": [{"podSelector": {}}]}], policies[0]["spec"]["ingress"])


def refusals(suite):
    sqlite = {"store": {"kind": "sqlite"}}
    secret = {"clerk": {"existingSecret": "own", "secretKeys": {"secretKey": "key"}}}
    for name, values, expected in [
        ("nobody's tokens", {}, "clerk.publishableKey is not set"),
        ("keys of no Secret", merged(LEAST, {"clerk": {"secretKeys": {"secretKey": "key"}}}), "clerk.existingSecret names no Secret"),
        ("a Secret of no keys", merged(LEAST, {"clerk": {"existingSecret": "own"}}), "clerk.secretKeys names none of its keys"),
        ("webhooks without a store", merged(LEAST, {"clerk": {"existingSecret": "own", "secretKeys": {"webhookSigningSecret": "w"}}}), "needs a store"),
        ("PostgreSQL without an address", merged(LEAST, {"store": {"kind": "postgres"}}), "store.postgres.existingSecret must name"),
        ("two replicas on SQLite", merged(LEAST, sqlite), "which serves one replica"),
        ("autoscaling on SQLite", merged(LEAST, {**sqlite, "replicaCount": 1, "autoscaling": {"enabled": True}}), "which serves one replica"),
        ("callers' certificates without TLS", merged(LEAST, {"tls": {"clientCAKey": "ca.crt"}}), "tls.secretName names no Secret"),
        ("two policies", merged(LEAST, {"policy": {"version": 1}, "policyConfigMap": "own"}), "which one is it?"),
        ("instances and an instance", merged(LEAST, {"clerk": {"instances": INSTANCES}}), "stands in place of"),
        ("fewer at most than at least", merged(LEAST, {"autoscaling": {"minReplicas": 9}}), "greater than autoscaling.maxReplicas"),
        ("a budget for nobody", merged(merged(LEAST, secret), {"clerk": {"apiBudget": 20}}), "less than 10 for each"),
        ("an end before its time", merged(LEAST, {"leavePauseSeconds": 25}), "would be cut off"),
        ("a secret as a setting", merged(LEAST, {"settings": {"CLERK_SECRET_KEY": "sk"}}), "is a secret"),
        ("its file as a setting", merged(LEAST, {"settings": {"CLERK_AUTHZ_DATABASE_URL_FILE": "/x"}}), "is a secret"),
        ("a collector's credential as a setting", merged(LEAST, {"settings": {"OTEL_EXPORTER_OTLP_HEADERS": "a=b"}}), "is a secret"),
        ("a collector's credential for traces as a setting", merged(LEAST, {"settings": {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "a=b"}}), "is a secret"),
        ("a collector's credential for logs as a setting", merged(LEAST, {"settings": {"OTEL_EXPORTER_OTLP_LOGS_HEADERS": "a=b"}}), "is a secret"),
        ("a collector's credential for nobody", merged(LEAST, {"otlp": {"existingSecret": "own"}}), "names no collector"),
        ("a setting that the chart has", merged(LEAST, {"settings": {"CLERK_AUTHZ_GRPC_ADDR": "0.0.0.0:1"}}), "is what the chart sets"),
        # By values.schema.json.
        ("the callers' file elsewhere", merged(LEAST, {"settings": {"CLERK_AUTHZ_CALLERS": "/x"}}), "is what the chart sets"),
        ("nobody to call", merged(LEAST, {"callers": ""}), "callers"),
        ("a slip of the pen", merged(LEAST, {"replicacount": 2}), "replicacount"),
        ("a slip deeper", merged(LEAST, {"clerk": {"autorizedParties": []}}), "autorizedParties"),
        ("an origin with a path", merged(LEAST, {"clerk": {"authorizedParties": ["https://a.example/x"]}}), "authorizedParties"),
        ("a secret key as the publishable one", {"clerk": {"publishableKey": "sk_live_abc"}}, "publishableKey"),
        ("another store", merged(LEAST, {"store": {"kind": "mysql"}}), "kind"),
        ("a digest that is none", merged(LEAST, {"image": {"digest": "latest"}}), "digest"),
        ("no replica", merged(LEAST, {"replicaCount": 0}), "replicaCount"),
    ]:
        ran = helm(["template", "x", str(CHART), "--kube-version", f"{KUBERNETES[-1]}.0"], values)
        check(suite, name, ran.returncode != 0 and expected in ran.stderr, ran.stderr or "it was rendered")
    ran = helm(["template", "x", str(CHART), "--kube-version", "1.29.0"], LEAST)
    check(suite, "a Kubernetes that is too old", ran.returncode != 0 and "kubeVersion" in ran.stderr, ran.stderr)


def names_of_values(value, at=""):
    """The paths of all values, down to those that are no objects or are empty ones."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from names_of_values(inner, f"{at}.{name}" if at else name)
    else:
        yield at


def documented(suite):
    text = (CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)
    schema = json.loads((CHART / "values.schema.json").read_text())

    def of_schema(part, at=""):
        inner = part.get("properties")
        if not inner:
            yield at
        for name, value in (inner or {}).items():
            yield from of_schema(value, f"{at}.{name}" if at else name)

    # What a user fills freely is one value here and there.
    free = ("resources.", "networkPolicy.grpcFrom")
    def flat(names):
        return {next((f.rstrip(".") for f in free if name.startswith(f)), name) for name in names}
    in_values, in_schema = flat(names_of_values(values)), flat(of_schema(schema)) - {"global"}
    check(suite, "values.yaml and its schema have the same names", in_values == in_schema, in_values ^ in_schema)
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    used = templates.replace("$keys.", ".Values.clerk.secretKeys.")
    unused = [name for name in in_schema if f".Values.{name}" not in used]
    check(suite, "every value does something", not unused, unused)


def settings(suite):
    """The service itself is asked whether it takes what is rendered."""
    rendered = {name: render(*values) for name, values in CASES.items()}
    rendered |= {f"overlay {name}": overlay(name) for name in ["postgres", "sqlite"] if KUBECTL}
    contents = {
        "secret-key": "sk_live_abc", "webhook-signing-secret": "whsec_" + "A" * 32, "database-url": "postgres://u:p@db/x",
        "a": "sk_live_abc", "b": "whsec_" + "A" * 32, "url": "postgres://u:p@db/x", "shop": "sk_live_abc",
        # Only their form is looked at here.
        "headers": "authorization=Bearer%20x",
        "billing": "0123456789abcdef" * 4,
        "c": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    }
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        authority.issue("tls", ["clerk-authz.authz.svc"], server=True)
        contents |= {name: (Path(folder) / name).read_text() for name in ["ca.crt", "tls.crt", "tls.key"]}
    of_all = {"clerk": ["shop"], "callers-secrets": ["billing"], "tls": ["ca.crt", "tls.crt", "tls.key"]}
    for name, all_documents in rendered.items():
        with tempfile.TemporaryDirectory() as folder:
            given = environment(all_documents)
            for volume in pod(all_documents)["volumes"]:
                mount = next(m for m in container(all_documents)["volumeMounts"] if m["name"] == volume["name"])
                inside = Path(folder + mount["mountPath"])
                inside.mkdir(parents=True)
                if "secret" in volume:
                    for key in [item["path"] for item in volume["secret"].get("items", [])] or of_all[volume["name"]]:
                        (inside / key).write_text(contents[key])
                if "configMap" in volume:
                    data = all_documents["ConfigMap", volume["configMap"]["name"]]["data"]
                    for item in volume["configMap"]["items"]:
                        moved = data[item["key"]].replace("/run/secrets", f"{folder}/run/secrets")
                        (inside / item["path"]).write_text(moved)
            moved = {k: folder + v if v.startswith(("/run/", "/etc/", "/var/")) else v for k, v in given.items()}
            ran = subprocess.run([BINARY, "serve", "--print-config"], env=moved, capture_output=True, text=True)
            check(suite, f"{name}: the service takes these settings", ran.returncode == 0, ran.stderr)
    wrong = subprocess.run(
        [BINARY, "serve", "--print-config"], env=environment(render(LEAST, {"settings": {"CLERK_AUTHZ_CLOCK_SKEWW": "1s"}})),
        capture_output=True, text=True)
    check(suite, "it would say so if it did not", wrong.returncode == 2 and "CLERK_AUTHZ_CLOCK_SKEWW" in wrong.stderr, wrong)


OF_HELM = {"helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/version", "app.kubernetes.io/instance",
           "helm.sh/resource-policy"}


def comparable(all_documents):
    """What both ways must agree on: everything but Helm's own labels, the namespace and where settings stand."""
    def without(value):
        if isinstance(value, dict):
            if "configMap" in value:
                # Named by each way as it names things; what is in it is compared.
                value = {**value, "configMap": {k: v for k, v in value["configMap"].items() if k != "name"}}
            kept = {k: without(v) for k, v in value.items() if k not in OF_HELM and k not in ("namespace", "envFrom", "env")}
            return {k: v for k, v in kept.items() if not (k in ("labels", "annotations") and v == {})}
        return [without(item) for item in value] if isinstance(value, list) else value

    out = {f"{kind} {name}": without(d) for (kind, name), d in all_documents.items() if kind != "ConfigMap"}
    out["settings"] = environment(all_documents)
    # A component puts its own in front.
    for its_pod in [d["spec"]["template"]["spec"] for key, d in out.items() if key.startswith("Deployment")]:
        for named in [its_pod["volumes"], its_pod["containers"][0]["volumeMounts"]]:
            named.sort(key=lambda one: one["name"])
    maps = [d["data"] for (kind, _), d in all_documents.items() if kind == "ConfigMap"]
    out["callers"] = [tomllib.loads(data["callers.toml"]) for data in maps if "callers.toml" in data]
    for rules in [d["spec"] for key, d in out.items() if key.startswith("NetworkPolicy")]:
        for rule in rules["ingress"] + rules["egress"]:
            rule["ports"].sort(key=str)
    return out


def kustomize(suite):
    for name in ["postgres", "sqlite"]:
        rendered = overlay(name)
        for version in KUBERNETES:
            problems = [problem for d in rendered.values() if (problem := schema_problem(d, version))]
            check(suite, f"{name}: by the schemas of Kubernetes {version}", rendered and not problems, problems)
        ours, chart = comparable(rendered), comparable(render(EXAMPLES / f"{name}.yaml"))
        check(suite, f"{name}: has what the chart has", ours.keys() == chart.keys(), ours.keys() ^ chart.keys())
        for part in ours.keys() & chart.keys():
            check(suite, f"{name}: {part} is that of the chart", ours[part] == chart[part], f"\n  {ours[part]}\n  {chart[part]}")
    with tempfile.TemporaryDirectory(dir=ROOT / "deploy/kustomize") as folder:
        (Path(folder) / "kustomization.yaml").write_text(
            "resources: [../overlays/postgres]\ncomponents: [../components/autoscaling]\n")
        ran = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True)
        rendered = documents(ran.stdout)
        ours = comparable(rendered)
        chart = comparable(render(EXAMPLES / "postgres.yaml", {"autoscaling": {"enabled": True}}))
        part = "HorizontalPodAutoscaler clerk-authz"
        check(suite, "autoscaling is that of the chart", ours.get(part) == chart[part], ran.stderr or ours.get(part))
        (Path(folder) / "kustomization.yaml").write_text(
            "resources: [../overlays/postgres]\ncomponents: [../components/tls]\n")
        ran = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True)
        encrypted = documents(ran.stdout)
        chart = render(EXAMPLES / "postgres.yaml", {"tls": {"secretName": "clerk-authz-tls", "clientCAKey": "ca.crt"}})
        ours, theirs = comparable(encrypted), comparable(chart)
        for part in ["Deployment clerk-authz", "settings"]:
            check(suite, f"TLS: {part} is that of the chart", ours.get(part) == theirs[part], f"{ran.stderr}\n  {ours.get(part)}\n  {theirs[part]}")
        (Path(folder) / "kustomization.yaml").write_text(
            "resources: [../overlays/postgres]\ncomponents: [../components/tls, ../components/servicemonitor-tls, ../components/prometheusrule]\n")
        ran = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True)
        monitored = documents(ran.stdout)
        problems = [problem for d in monitored.values() if (problem := schema_problem(d, KUBERNETES[-1]))]
        check(suite, "monitored over TLS: by the schemas", monitored and not problems, ran.stderr or problems)
        chart = render(EXAMPLES / "postgres.yaml", {
            "tls": {"secretName": "clerk-authz-tls", "clientCAKey": "ca.crt"}, "prometheusRule": {"enabled": True}})
        ours, theirs = comparable(monitored), comparable(chart)
        part = "PrometheusRule clerk-authz"
        check(suite, "the alerts are those of the chart", ours.get(part) == theirs[part], ran.stderr or "copy deploy/prometheus/alerts.yaml anew")
        part = "ServiceMonitor clerk-authz"
        # The chart knows its namespace, and kustomize does not.
        theirs[part]["spec"]["endpoints"][0]["tlsConfig"]["serverName"] = "clerk-authz"
        check(suite, "Prometheus asks as the chart says, over HTTPS", ours.get(part) == theirs[part], f"{ours.get(part)}\n  {theirs[part]}")
        check(suite, "and decides how many", "replicas" not in deployment(rendered)["spec"], deployment(rendered)["spec"])


run_parts([
    ("helm: documents", HELM, valid),
    ("helm: hardening", HELM, hardened),
    ("helm: probes", HELM, probes),
    ("helm: switches", HELM, switches),
    ("helm: selectors", HELM, selectors),
    ("helm: network", HELM, network),
    ("helm: refusals", HELM, refusals),
    ("helm: values", HELM, documented),
    ("helm: settings", HELM and Path(BINARY).exists(), settings),
    ("kustomize", HELM and KUBECTL, kustomize),
])
