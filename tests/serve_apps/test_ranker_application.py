"""The Serve application's configuration file names things that exist; Ray's own schema lets unknown keys pass."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.schema import HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

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
