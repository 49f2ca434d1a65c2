"""The Serve application's configuration file names things that exist; Ray's own schema lets unknown keys pass.

Settings reach the replica, too.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from ray import serve
from ray.serve.schema import HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

from jobs.serve import serving
from prectr.artifacts import run_stage
from prectr.configuration import FrozenConfig
from prectr.online.config import ServeConfig
from prectr.relevance.encoder_session import INT8_FILE, SETTINGS_FILE
from prectr.relevance.tokenisation import TOKENIZER_FILE
from prectr.serving import Served
from serve_apps.ranker import AppArguments, build_app

FILE = Path(__file__).parents[2] / "serve_apps" / "ranker.yaml"


@pytest.fixture(scope="module")
def configuration() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return content


def _unknown(content: dict[str, Any], schema: type[BaseModel]) -> set[str]:
    return set(content) - set(schema.model_fields)


def test_every_key_is_known_to_ray(configuration: dict[str, Any]) -> None:
    ServeDeploySchema.model_validate(configuration)
    assert _unknown(configuration, ServeDeploySchema) == set()
    assert _unknown(configuration["http_options"], HTTPOptionsSchema) == set()
    assert _unknown(configuration["applications"][0], ServeApplicationSchema) == set()


def test_arguments_are_those_of_the_application(configuration: dict[str, Any]) -> None:
    (application,) = configuration["applications"]
    module, _, builder = application["import_path"].partition(":")
    found = importlib.import_module(module)
    assert callable(getattr(found, builder))
    arguments = found.AppArguments.model_validate(application["args"])
    # Ray's default of 5 makes throughput collapse under concurrent requests.
    assert arguments.max_ongoing_requests >= 100
    with pytest.raises(ValidationError):
        found.AppArguments.model_validate({**application["args"], "replica": 2})


def test_listens_on_the_loopback_address(configuration: dict[str, Any]) -> None:
    assert configuration["http_options"]["host"] == "127.0.0.1"


class _Told:
    """In place of the service: its bundle is named after what it was given."""

    def __init__(self, bundle: Path, **settings: Any) -> None:
        told = " ".join(f"{name}={value}" for name, value in settings.items())
        self.scorer = SimpleNamespace(bundle=SimpleNamespace(name=bundle.name, version=told))


def test_the_replica_is_made_with_the_settings_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve's local testing mode makes it in this process, without a cluster."""
    answers = []

    @contextmanager
    def in_this_process(_: Served, arguments: dict[str, Any], config: ServeConfig) -> Iterator[str]:
        application = build_app(AppArguments(**arguments))
        handle = serve.run(application, name=str(config.int8), _local_testing_mode=True)
        answers.append(handle.health.remote().result())
        yield ""

    monkeypatch.setattr("serve_apps.ranker.RankingService", _Told)
    monkeypatch.setattr("jobs.serve.serving_application", in_this_process)
    run_stage("train", tmp_path / "ranker", config=FrozenConfig(), inputs={}, build=_write_int8_encoder)
    for int8 in (False, True):
        with serving(tmp_path / "ranker", ServeConfig(threads=3, int8=int8)):
            assert answers.pop() == {"status": "ok", "model": "ranker", "version": f"threads=3 int8={int8}"}


def _write_int8_encoder(staging: Path) -> dict[str, Any]:
    (staging / "relevance").mkdir()
    for name in (INT8_FILE, SETTINGS_FILE, TOKENIZER_FILE):
        (staging / "relevance" / name).touch()
    return {}
