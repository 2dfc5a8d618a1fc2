"""What infra/ and prefect.yaml declare: parsed, pinned, on loopback, without secrets, and fitting the code."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
INFRA = ROOT / "infra"
FILES = sorted([ROOT / "prefect.yaml", *INFRA.rglob("*.yaml"), *INFRA.rglob("*.json")])
VARIABLE = re.compile(r"\{\{ \$(\w+) \}\}")  # in prefect.yaml: taken from the environment when deploying
SECRET = re.compile(r"password|secret|key|token", re.IGNORECASE)


def load(path: Path) -> Any:
    text = path.read_text("utf-8")
    return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(name, value) of everything in a document; a list's items have the list's name."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from leaves(below, str(key))
    elif isinstance(value, list):
        for below in value:
            yield from leaves(below, name)
    else:
        yield name, value


def example() -> dict[str, str]:
    """The variables of env.example."""
    lines = (INFRA / "env.example").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def places() -> set[str]:
    """The variables that prefect.yaml takes from the environment."""
    return {name for _, value in leaves(load(ROOT / "prefect.yaml")) for name in VARIABLE.findall(str(value))}


def deployments() -> list[dict[str, Any]]:
    """prefect.yaml's, filled in from env.example."""
    known = example()

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(below) for key, below in value.items()}
        if isinstance(value, list):
            return [filled(below) for below in value]
        return VARIABLE.sub(lambda found: known[found[1]], value) if isinstance(value, str) else value

    return list(filled(load(ROOT / "prefect.yaml"))["deployments"])


def deployed(deployment: dict[str, Any]) -> Any:
    """The flow of a deployment, loaded as Prefect does."""
    from prefect.flows import load_flow_from_entrypoint

    path, name = deployment["entrypoint"].split(":")
    return load_flow_from_entrypoint(f"{ROOT / path}:{name}", use_placeholder_flow=False)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_parses_and_holds_no_secrets(path: Path) -> None:
    for name, value in leaves(load(path)):
        if SECRET.search(name) and isinstance(value, str) and name != "key":  # of a toleration, of a label
            assert re.fullmatch(r"\$\{\w+:\?.*\}", str(value)), f"{name} of {path.name}"
        assert not re.search(r"AKIA|://[^/${]+:[^/$]+@", str(value)), f"{name} of {path.name}"


def test_the_example_of_the_environment_has_no_secrets_and_git_ignores_the_real_one() -> None:
    assert [name for name, value in example().items() if SECRET.search(name) and value] == []
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    done = subprocess.run(["git", "check-ignore", "--quiet", "infra/.env"], cwd=ROOT)
    assert done.returncode == 0


def test_compose_publishes_on_loopback_and_pins_its_images() -> None:
    services = load(INFRA / "compose.yaml")["services"]
    assert {"database", "server", "worker", "storage"} <= set(services)
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert re.search(r":\d+\.\d+", service["image"]), name
    text = (INFRA / "compose.yaml").read_text("utf-8")
    assert set(re.findall(r"\$\{(\w+)", text)) <= set(example())


def test_images_have_the_versions_that_the_tests_run_with() -> None:
    (base,) = re.findall(r"^FROM (\S+)", (INFRA / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base)
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if "==" in line)
    prefect = pins["prefect"].split()[0]
    assert load(ROOT / "prefect.yaml")["prefect-version"] == prefect
    for values in (INFRA / "kubernetes").glob("*-values.yaml"):
        (tag,) = (value for name, value in leaves(load(values)) if name == "prefectTag")
        assert tag.startswith(f"{prefect}-python3.11"), values.name
    version = importlib.metadata.version("conceptprune")
    template = load(INFRA / "kubernetes/base-job-template.json")
    for image in (load(INFRA / "compose.yaml")["services"]["worker"]["image"],
                  template["variables"]["properties"]["image"]["default"]):  # fmt: skip
        assert image.endswith(f"conceptprune:{version}")


def test_the_environment_has_what_deploying_fills_in() -> None:
    assert places() <= set(example())
    assert all(name.startswith("CONCEPTPRUNE_") for name in places())


@pytest.mark.parametrize("deployment", deployments(), ids=lambda deployment: deployment["name"])
def test_entrypoints_load_and_their_parameters_are_valid(deployment: dict[str, Any]) -> None:
    from prefect.client.schemas.schedules import CronSchedule

    deployed(deployment).validate_parameters(deployment["parameters"])
    for schedule in deployment.get("schedules", ()):
        CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
        assert deployment["concurrency_limit"]["limit"] == 1
    pools = re.findall(r"work-pool create (\S+)", (INFRA / "setup.sh").read_text("utf-8"))
    assert deployment["work_pool"]["name"] in pools


@pytest.mark.parametrize("deployment", deployments(), ids=lambda deployment: deployment["name"])
def test_forms_say_what_each_field_is_and_bound_every_number(deployment: dict[str, Any]) -> None:
    from prefect.utilities.callables import parameter_schema

    schema = parameter_schema(deployed(deployment))
    fields = {name: own for definition in schema.definitions.values() for name, own in definition["properties"].items()}
    assert fields
    assert [name for name, own in fields.items() if not own.get("description")] == []
    for name, own in {**fields, **schema.properties}.items():
        assert own["title"] == name
        for kind in own.get("anyOf", [own]):
            if kind.get("type") in ("integer", "number"):
                assert {"minimum", "exclusiveMinimum"} & set(kind), name
                assert {"maximum", "exclusiveMaximum"} & set(kind), name


def test_runs_that_capture_keep_a_limit_that_is_made_when_setting_up() -> None:
    setup = (INFRA / "setup.sh").read_text("utf-8")
    for deployment in deployments():
        limit = deployment["work_pool"]["job_variables"]["env"].get("CONCEPTPRUNE_GPU_LIMIT")
        assert (limit is not None) == ("gpu" in deployment["tags"]), deployment["name"]
        assert limit is None or f"prefect gcl create {limit} " in setup


def test_the_shares_of_a_capture_go_to_a_deployment_and_a_pool_of_their_own() -> None:
    from flows.config import Settings

    (share,) = (one for one in deployments() if one["name"] == "capture-share")
    assert Settings().capture_deployment == f"{deployed(share).name}/{share['name']}"
    for deployment in deployments():
        env = deployment["work_pool"]["job_variables"]["env"]
        assert env["CONCEPTPRUNE_CAPTURE_DEPLOYMENT"] == Settings().capture_deployment
        assert (deployment["work_pool"]["name"] == share["work_pool"]["name"]) == (deployment["name"] == share["name"])


def test_the_heartbeat_automation_is_one_and_waits_for_several_beats() -> None:
    from prefect.events.schemas.automations import AutomationCore

    automation = AutomationCore.model_validate(load(INFRA / "automations/heartbeat.yaml"))
    within = automation.trigger.within.total_seconds()  # type: ignore[union-attr]
    beats = {deployment["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]
             for deployment in deployments()}  # fmt: skip
    assert all(within >= 3 * int(beat) for beat in beats)
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Crashed", "Cancelled")}
    assert ends < set(automation.trigger.expect)  # type: ignore[union-attr]


def test_dask_knows_its_settings() -> None:
    import distributed

    def unknown(own: Any, theirs: Any, place: str) -> list[str]:
        if not isinstance(own, dict) or not isinstance(theirs, dict):
            return []
        missing = [f"{place}.{key}" for key in own if key not in theirs]
        return missing + [
            name for key in own if key in theirs for name in unknown(own[key], theirs[key], f"{place}.{key}")
        ]

    defaults = load(Path(distributed.__file__).parent / "distributed.yaml")
    assert unknown(load(INFRA / "dask.yaml"), defaults, "") == []


def test_the_job_template_uses_the_variables_that_it_declares() -> None:
    template = load(INFRA / "kubernetes/base-job-template.json")
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])
