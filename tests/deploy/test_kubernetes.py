"""What kustomize makes of deploy/kubernetes holds to the schemas, and means what it should."""

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from consumer.settings import ConsumerSettings
from consumer.telemetry.metrics import METRICS
from tests.conftest import ROOT

KUBERNETES = ("1.33", "1.37")  # the oldest that is still kept up, and the newest known here
OVERLAYS = ("cpu", "gpu")
FOLDER = ROOT / "deploy/kubernetes"
SECRET = "a-secret-that-only-this-test-knows-0123456789"
NOT_OURS = {"HF_HUB_OFFLINE"}  # huggingface_hub's

Resource = dict[str, Any]


@pytest.fixture(scope="session", autouse=True)
def tools() -> None:
    """kustomize, built from its Go module, and KEDA's definition, out of its own."""
    command = [
        "make",
        "build/kustomize",
        "build/keda-scaledobject.yaml",
        f"PYTHON={sys.executable}",
    ]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr


@cache
def rendered(folder: Path) -> dict[str, Resource]:
    """Return the resources of an overlay by kind; there is one of each."""
    command = [str(ROOT / "build/kustomize"), "build", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    resources = list(yaml.safe_load_all(done.stdout))
    by_kind = {resource["kind"]: resource for resource in resources}
    assert len(by_kind) == len(resources)
    return by_kind


def pod(overlay: Path) -> Resource:
    return rendered(overlay)["StatefulSet"]["spec"]["template"]


def environment(overlay: Path) -> dict[str, str]:
    [container] = pod(overlay)["spec"]["containers"]
    own = {one["name"]: one.get("value", "pod-0") for one in container["env"]}
    return rendered(overlay)["ConfigMap"]["data"] | own


def taken(given: dict[str, str], folder: Path) -> ConsumerSettings:
    """Return the settings of an environment whose every variable is one; secrets are files."""
    fields = {name.upper() for name in ConsumerSettings.model_fields}
    assert given.keys() <= fields | {f"{name}_FILE" for name in fields} | NOT_OURS
    own = dict(given)
    for name, path in given.items():
        if path.startswith("/run/secrets/"):
            file = folder / Path(path).name
            file.write_text(f"k2:{SECRET}" if "previous" in path else SECRET)
            own[name] = str(file)
    return ConsumerSettings.from_env(own)


overlays = pytest.mark.parametrize("overlay", [FOLDER / "overlays" / one for one in OVERLAYS])


@overlays
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_it(overlay: Path, version: str) -> None:
    """Every resource holds to the strict schema, which allows no field that Kubernetes lacks."""
    for kind, resource in rendered(overlay).items():
        if kind != "ScaledObject":
            kubernetes_validate.validate(resource, version, strict=True)


def test_a_field_that_there_is_not_is_found() -> None:
    """A test of the test: a misspelt field of a probe is an error."""
    probes = rendered(FOLDER / "overlays/cpu")["StatefulSet"]
    text = yaml.safe_dump(probes).replace("failureThreshold", "failureTreshold")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(yaml.safe_load(text), KUBERNETES[-1], strict=True)


def test_keda_takes_it() -> None:
    """The ScaledObject holds to KEDA's definition, asks our metric, and is bounded."""
    definition = yaml.safe_load((ROOT / "build/keda-scaledobject.yaml").read_text())
    [version] = [v for v in definition["spec"]["versions"] if v["name"] == "v1alpha1"]
    schema = version["schema"]["openAPIV3Schema"]
    found = rendered(FOLDER / "overlays/gpu")
    scaled = found["ScaledObject"]
    jsonschema.Draft202012Validator(_closed(schema)).validate(scaled)

    target = scaled["spec"]["scaleTargetRef"]
    workload = found[target["kind"]]
    assert (target["name"], target["apiVersion"]) == (
        workload["metadata"]["name"],
        workload["apiVersion"],
    )
    assert "replicas" not in workload["spec"]  # it is KEDA's to say
    assert scaled["spec"]["minReplicaCount"] >= 1
    [trigger] = scaled["spec"]["triggers"]
    assert trigger["type"] == "prometheus"
    namespace = workload["metadata"]["namespace"]
    assert trigger["metadata"]["query"] == (
        f'sum(imagelane_backlog_records{{namespace="{namespace}"}})'
    )
    assert "imagelane_backlog_records" in METRICS


def _closed(schema: Any) -> Any:
    """Return the schema with no other field allowed where fields are listed, as `strict` is."""
    if isinstance(schema, dict):
        closed = {name: _closed(part) for name, part in schema.items()}
        if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
            # `metadata` is described by Kubernetes, and by nothing here.
            closed["additionalProperties"] = False
        return closed
    return [_closed(part) for part in schema] if isinstance(schema, list) else schema


@overlays
def test_settings_are_those_of_the_consumer(overlay: Path, tmp_path: Path) -> None:
    """Every variable is a setting, and all of them together are taken."""
    settings = taken(environment(overlay), tmp_path)

    spec = pod(overlay)["spec"]
    assert spec["terminationGracePeriodSeconds"] > settings.stop_seconds + 2
    assert settings.health_host == "0.0.0.0"
    assert settings.group_instance_id == "pod-0"
    [container] = spec["containers"]
    [port] = container["ports"]
    assert port["containerPort"] == settings.health_port
    assert {
        name: container[f"{name}Probe"]["httpGet"]["path"]
        for name in ("liveness", "readiness", "startup")
    } == {
        "liveness": "/livez",
        "readiness": "/readyz",
        "startup": "/livez",
    }


@overlays
def test_pod_is_confined(overlay: Path) -> None:
    """No root user, no writable root, no capability, no token; what is written is a volume."""
    spec = pod(overlay)["spec"]
    [container] = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert {path for path, mount in mounts.items() if not mount.get("readOnly")} == {
        "/tmp",
        "/cache",
    }
    assert (
        container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    )
    secrets = [one["secret"] for one in spec["volumes"] if "secret" in one]
    assert secrets
    assert not any("secretKeyRef" in str(one) for one in container["env"])


@overlays
def test_everything_is_about_these_pods(overlay: Path) -> None:
    """The selectors of budget, policy, service and workload select the pods, and no others."""
    found = rendered(overlay)
    labels = pod(overlay)["metadata"]["labels"]
    selectors = [
        found["StatefulSet"]["spec"]["selector"]["matchLabels"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
    ]
    for selector in selectors:
        assert selector == labels
    namespaces = {one["metadata"]["namespace"] for one in found.values()}
    assert len(namespaces) == 1


def test_one_gpu_a_pod() -> None:
    """A limit of one, and the device that is asked for."""
    overlay = FOLDER / "overlays/gpu"
    [container] = pod(overlay)["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert environment(overlay)["DEVICE"] == "cuda"
    assert "nvidia.com/gpu" not in str(pod(FOLDER / "overlays/cpu"))


def overlay_with(folder: Path, *components: str) -> Path:
    """Make an overlay of the CPU's with these components, in a namespace of its own."""
    overlay = folder / "overlay"
    overlay.mkdir()
    above = Path("../" * len(overlay.parts[1:])) / FOLDER.relative_to("/")
    text = yaml.safe_dump(
        {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "ours",
            "resources": [str(above / "overlays/cpu")],
            "components": [str(above / "components" / one) for one in components],
        }
    )
    (overlay / "kustomization.yaml").write_text(text)
    return overlay


@pytest.mark.parametrize("component", sorted(one.name for one in FOLDER.glob("components/*")))
def test_each_component_alone(tmp_path: Path, component: str) -> None:
    """It renders, in another namespace, and what it makes holds to the schemas and settings."""
    overlay = overlay_with(tmp_path, component)
    for kind, resource in rendered(overlay).items():
        assert resource["metadata"]["namespace"] == "ours"
        if kind != "ScaledObject":
            kubernetes_validate.validate(resource, KUBERNETES[-1], strict=True)
    taken(environment(overlay), tmp_path)


def test_user_that_the_cluster_chooses(tmp_path: Path) -> None:
    """The component takes our user out, and no confinement."""
    overlay = overlay_with(tmp_path, "arbitrary-uid")
    context = pod(overlay)["spec"]["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_rotation_brings_a_second_key(tmp_path: Path) -> None:
    """Both keys are taken, each from its own file."""
    settings = taken(environment(overlay_with(tmp_path, "rotation")), tmp_path)
    assert settings.keys.secrets.keys() == {"k1", "k2"}
