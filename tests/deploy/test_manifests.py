"""What is deployed is closed, bounded and not root; what of it can be checked here is."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pokerarena.settings import ENV_PREFIX, Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
NAMES = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
NOT_OURS = {"POKERARENA_TAG"}
# What an operator brings along, beside Secrets; docs/deploy.md says how it is made.
BROUGHT = {"pokerarena-service-keys"}


def documents(folder: str = "base") -> list[dict[str, Any]]:
    return [
        document
        for path in sorted((DEPLOY / "kubernetes" / folder).glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    ]


def pods(folder: str = "base") -> list[dict[str, Any]]:
    kinds = ("Deployment", "Job", "StatefulSet")
    return [one["spec"]["template"]["spec"] for one in documents(folder) if one["kind"] in kinds]


def test_every_setting_that_is_set_exists() -> None:
    for path in DEPLOY.rglob("*"):
        if path.is_file() and path.suffix in (".yml", ".yaml", ".service", ""):
            for name in re.findall(r"POKERARENA_[A-Z_]+[A-Z]", path.read_text()):
                assert name.removesuffix("_FILE") in NAMES | NOT_OURS, f"{name} in {path.name}"


def test_every_pod_is_closed_and_bounded() -> None:
    assert len(pods()) == 4
    for pod in pods():
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["runAsNonRoot"] is True
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert not [
                env
                for env in container.get("env", ())
                if "KEY" in env["name"] and "FILE" not in env["name"]
            ]


# What each role may hold; docs/operations.md says the same.
HELD = {
    "api": {"MASTER_KEY", "TOKEN_PEPPER", "DATABASE_URL"},
    "worker": {"MASTER_KEY", "SERVICE_KEY", "SERVICE_PUBLIC_KEYS", "DATABASE_URL"},
    "migrate": {"DATABASE_URL", "DATABASE_API_PASSWORD", "DATABASE_WORKER_PASSWORD"},
}
# Whatever they are told, it is no setting, and no secret.
UNTOLD = ("egress-proxy",)


def test_each_role_gets_the_secrets_that_it_uses_and_no_others() -> None:
    given: dict[str, list[set[str]]] = {role: [] for role in HELD}
    for pod in pods():
        container = pod["containers"][0]
        if container["name"] not in HELD:
            assert not [volume for volume in pod["volumes"] if "secret" in volume]
            continue
        given[container["name"]].append({env["name"] for env in container["env"]})
        # One Secret for each role, so that nothing else is mounted either.
        [mounted] = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
        assert mounted["secretName"] == f"pokerarena-{container['name']}"
    services = yaml.safe_load((DEPLOY / "compose.yml").read_text())["services"]
    for role, names in given.items():
        names.append(set(services[role]["environment"]))
        mounted_names = {
            one if isinstance(one, str) else one["source"] for one in services[role]["secrets"]
        }
        assert len(mounted_names) == len(HELD[role]), role
    for unit in UNITS:
        text = unit.read_text()
        if unit.stem.removeprefix("pokerarena-") in UNTOLD:
            assert "POKERARENA_" not in text
            assert "LoadCredential" not in text
            continue
        given[unit.stem.removeprefix("pokerarena-")].append(
            set(re.findall(r"^Environment=(POKERARENA_\w+)=", text, re.M))
        )
    for role, all_names in given.items():
        for names in all_names:
            files = {name for name in names if name.endswith("_FILE")}
            held = {name.removeprefix(ENV_PREFIX).removesuffix("_FILE") for name in files}
            assert held == HELD[role], role


def test_a_pod_has_longer_to_end_than_the_program_takes() -> None:
    for pod in pods():
        if pod["containers"][0]["name"] == "worker":
            drain_s = Settings.model_fields["worker_drain_s"].default
            assert pod["terminationGracePeriodSeconds"] > drain_s


def test_the_network_is_closed_unless_opened() -> None:
    policies = {
        one["metadata"]["name"]: one["spec"]
        for one in documents()
        if one["kind"] == "NetworkPolicy"
    }
    assert policies["deny-all"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    outside = [
        peer["ipBlock"] for spec in policies.values() for rule in spec.get("egress", ())
        for peer in rule["to"] if "ipBlock" in peer
    ]  # fmt: skip
    assert len(outside) == 1, "only workers reach beyond the cluster"
    assert {"10.0.0.0/8", "169.254.0.0/16"} <= set(outside[0]["except"])


def test_an_agent_host_has_nodes_of_its_own_and_nothing_to_tell() -> None:
    by_kind = {
        one["kind"]: one for one in documents("agent-host") if one["kind"] != "NetworkPolicy"
    }
    runtime, (pod,) = by_kind["RuntimeClass"], pods("agent-host")
    assert pod["runtimeClassName"] == runtime["metadata"]["name"]
    (pool,) = runtime["scheduling"]["nodeSelector"].items()
    (tainted,) = runtime["scheduling"]["tolerations"]
    assert (tainted["key"], tainted["value"], tainted["effect"]) == (*pool, "NoSchedule")
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert [env["name"] for env in container["env"]] == ["POD_NAME"], "no setting and no secret"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["limits"]["memory"]
    policies = [one["spec"] for one in documents("agent-host") if one["kind"] == "NetworkPolicy"]
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in policies
    assert not [policy for policy in policies if "egress" in policy], "it reaches nobody"


def test_the_overlay_for_hosted_agents_only_adds_to_what_workers_reach() -> None:
    def egress(path: str) -> list[Any]:
        named = yaml.safe_load_all((DEPLOY / "kubernetes" / path).read_text())
        (worker,) = [one for one in named if one["metadata"]["name"] == "worker"]
        return list(worker["spec"]["egress"])

    *base, added = egress("overlays/hosted/network.yaml")
    assert base == egress("base/network.yaml")
    assert added["ports"] == [{"protocol": "TCP", "port": 7443}]


OVERLAYS = sorted(
    path.parent for path in (DEPLOY / "kubernetes").glob("overlays/*/kustomization.yaml")
)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_an_overlay_renders_with_everything_that_its_pods_name(overlay: Path) -> None:
    """Where kubectl is there; what it reads are the files that the other tests judge."""
    if (kubectl := shutil.which("kubectl")) is None:
        assert yaml.safe_load((overlay / "kustomization.yaml").read_text())["resources"]
        return
    rendered = subprocess.run(
        [kubectl, "kustomize", overlay], capture_output=True, text=True, check=False
    )
    assert rendered.returncode == 0, rendered.stderr
    found = [one for one in yaml.safe_load_all(rendered.stdout) if one]
    names = {(one["kind"], one["metadata"]["name"]) for one in found}
    places = {(one["kind"], str(one["metadata"])) for one in found}
    assert len(places) == len(found)
    assert "pokerarena:latest" not in rendered.stdout
    for one in found:
        if "template" not in one.get("spec", {}):
            continue
        pod = one["spec"]["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        volumes |= {
            claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", ())
        }
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert container["image"].rpartition(":")[2] not in ("", "latest")
        for volume in pod["volumes"]:
            if "configMap" in volume:
                name = volume["configMap"]["name"]
                assert name in BROUGHT or ("ConfigMap", name) in names
        if one["kind"] == "StatefulSet":
            assert ("Service", one["spec"]["serviceName"]) in names


def test_containers_of_compose_are_closed_and_bounded() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yml").read_text())["services"]
    for name, service in services.items():
        assert service["mem_limit"], name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} is open to everybody"
        if name != "database":
            assert service["read_only"] is True, name
            assert service["cap_drop"] == ["ALL"], name


def test_the_image_is_built_from_the_locks_and_is_not_root() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]
    for line in lines:
        if "pip sync" in line or "pip install" in line:
            assert "--require-hashes" in line or "--no-deps --offline" in line, line
        assert not line.startswith("ADD ")
    assert sum(line.startswith("FROM ") for line in lines) == 2


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_a_unit_gives_nothing_away(unit: Path) -> None:
    text = unit.read_text()
    for line in (
        "DynamicUser=yes",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "CapabilityBoundingSet=",
    ):
        assert f"\n{line}\n" in text
    assert not re.search(r"^Environment=.*(KEY|PEPPER|URL)=", text, re.M), "secrets are credentials"
    if analyze := shutil.which("systemd-analyze"):
        checked = subprocess.run(
            [analyze, "verify", unit], capture_output=True, text=True, check=False
        )
        said = [
            line for line in checked.stderr.splitlines()
            if unit.name in line and "is not executable" not in line
        ]  # fmt: skip
        assert said == [], checked.stderr
