"""What is deployed by file names things that exist (Ray's own schema lets unknown keys pass); settings are sane."""

import asyncio
import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.schema import DeploymentSchema, HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

from jobs.serve import require_servable, with_rankers
from prectr.core.errors import PrectrError, UsageError
from prectr.serving.config import ModelsConfig, ServeConfig
from prectr.serving.instruments import PrometheusInstruments
from prectr.serving.models_history import folder_of, record_served, replace_file
from serve_apps.ranker import AppArguments, build_app, open_service
from tests.prectr.bundle_world import World

FOLDER = Path(__file__).parents[2] / "serve_apps"


@pytest.fixture(scope="module")
def configuration() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / "ranker.yaml").read_text(encoding="utf-8"))
    return content


def _unknown(content: dict[str, Any], schema: type[BaseModel]) -> set[str]:
    return set(content) - set(schema.model_fields)


def test_every_key_is_known_to_ray(configuration: dict[str, Any]) -> None:
    ServeDeploySchema.model_validate(configuration)
    assert _unknown(configuration, ServeDeploySchema) == set()
    assert _unknown(configuration["http_options"], HTTPOptionsSchema) == set()
    (application,) = configuration["applications"]
    assert _unknown(application, ServeApplicationSchema) == set()
    for deployment in application["deployments"]:
        assert _unknown(deployment, DeploymentSchema) == set()


def test_arguments_and_models_are_those_of_the_application(configuration: dict[str, Any]) -> None:
    (application,) = configuration["applications"]
    module, _, builder = application["import_path"].partition(":")
    assert callable(getattr(importlib.import_module(module), builder))
    AppArguments.model_validate(application["args"])
    with pytest.raises(ValidationError):
        AppArguments.model_validate({**application["args"], "replica": 2})
    (deployment,) = application["deployments"]
    assert ModelsConfig.model_validate(deployment["user_config"]).control == "prectr-v2"
    assert build_app(AppArguments())._bound_deployment.name == deployment["name"]


def test_listens_on_the_loopback_address(configuration: dict[str, Any]) -> None:
    assert configuration["http_options"]["host"] == "127.0.0.1" == ServeConfig().host


def test_a_deployment_has_room_sheds_with_429_and_scales() -> None:
    options = build_app(AppArguments())._bound_deployment
    # Ray's default of 5 makes throughput collapse under concurrent requests.
    assert options.max_ongoing_requests >= 100 and options.max_queued_requests >= 100
    assert options._deployment_config.backpressure_config.status_code == 429
    assert options.num_replicas == 1
    scaled = build_app(AppArguments(serve=ServeConfig(replicas=(2, 5))))._bound_deployment
    scaling = scaled._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 5)
    assert scaling.target_ongoing_requests < ServeConfig().max_queued_requests, "it scales before it sheds"


def test_a_replica_takes_the_cpus_and_memory_that_are_configured() -> None:
    usual, large = (
        build_app(AppArguments(serve=config))._bound_deployment.ray_actor_options
        for config in (ServeConfig(), ServeConfig(cpus=4, memory_gib=2))
    )
    assert usual["num_cpus"] == 1 and not usual.get("memory")
    assert (large["num_cpus"], large["memory"]) == (4, 2**31)


def test_rankers_are_named_by_their_directories(tmp_path: Path) -> None:
    config = with_rankers(ServeConfig(), [tmp_path / "x" / "one", tmp_path / "two"])
    assert list(config.models.bundles) == ["one", "two"] and config.models.control == "one"
    with pytest.raises(UsageError, match="two rankers have one name"):
        with_rankers(ServeConfig(), [tmp_path / "x" / "one", tmp_path / "one"])
    with pytest.raises(UsageError, match="name a ranker"):
        with_rankers(ServeConfig(), [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": "nowhere"}, "nowhere: nothing was published there"),
        ({"features": "redis://127.0.0.1:1/0"}, "Redis does not answer"),
        ({"security": {"tokens_file": "nowhere"}}, "the tokens cannot be read"),
        ({"int8": True, "models": {"bundles": {"x": "nowhere"}}}, "no train artifact here"),
    ],
)
def test_what_cannot_be_served_is_told_before_ray_starts(world: World, settings: dict[str, Any], message: str) -> None:
    models = {"models": {"bundles": {"v2": str(world.bundle)}}}
    with pytest.raises(PrectrError, match=message):
        require_servable(ServeConfig.model_validate(models | settings))


def test_a_replica_that_starts_while_the_file_is_refused_takes_what_was_served_last(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_apps.ranker.RayInstruments", PrometheusInstruments)

    def default_model() -> str:
        service = open_service(ServeConfig(), file, "k" * 32)
        name = service.default.name
        asyncio.run(service.close())
        return name

    file = tmp_path / "models.yaml"
    text = yaml.safe_dump({"bundles": {"good": str(world.bundle)}})
    replace_file(file, text)
    assert default_model() == "good"
    record_served(file, text)
    replace_file(file, yaml.safe_dump({"bundles": {"bad": str(tmp_path / "nowhere")}}))
    assert default_model() == "good"
    shutil.rmtree(folder_of(file))
    with pytest.raises(PrectrError, match="nowhere"):
        default_model()
