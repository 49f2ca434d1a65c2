"""Credentials are planted wherever a user can give them, every command runs, and nothing that is written shows them."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from jobs.cli import COMMANDS, command_table, main
from prectr.core import mirror, progress
from prectr.core.artifacts import run_stage
from prectr.core.config import FrozenConfig
from prectr.core.errors import PrectrError, UsageError
from prectr.core.secrets import mask_logs, masked
from prectr.serving.redis_client import PASSWORD, PASSWORD_FILE, USERNAME, RedisGuard, StoreDown
from prectr.serving.states import RedisState
from tests.redis_server import RedisServer

SECRET = "planted5ecret"
"""All secrets begin with it; their ends tell where they were planted."""
REDIS = f"redis://reader:{SECRET}-redis@127.0.0.1:1/0"
STORAGE = f"s3://access:{SECRET}-s3@bucket/folder"
PARAMETERS = f"http://127.0.0.1:1/v1?X-Amz-Signature={SECRET}-signature&token={SECRET}-query"
TEACHER = f"http://user:{SECRET}-teacher@127.0.0.1:1/v1"
CLUSTER = f"http://user:{SECRET}-cluster@127.0.0.1:1"
URLS = (REDIS, STORAGE, PARAMETERS, TEACHER, CLUSTER)


@pytest.fixture(autouse=True)
def _planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    for name in ("PRECTR_SERVE_TOKENS", "OPENAI_API_KEY", PASSWORD, "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, f"{SECRET}-of-{name}")
    monkeypatch.setenv(mirror.VARIABLE, str(tmp_path / "mirror"))
    factory, level, before = logging.getLogRecordFactory(), logging.getLogger().level, dict(os.environ)
    yield
    progress.set_verbosity(0)
    os.environ.clear()  # commands set variables of Ray, which would reach a Ray that another test starts
    os.environ.update(before)
    logging.setLogRecordFactory(factory)
    logging.getLogger().setLevel(level)


def test_masks() -> None:
    for url in URLS:
        assert SECRET not in masked(f"{url}: cannot be read; run it with --to {url}.")
        assert SECRET not in json.dumps({"url": url}) or SECRET not in masked(json.dumps({"url": url}))
    for harmless in (
        "redis://127.0.0.1:6379/0",
        "s3://bucket/a=b/part",
        "http://[::1]:8000/v1?page=2",
        "a: b@c",
        "x=1",
    ):
        assert masked(harmless) == harmless
    assert masked("rediss://:pa@ss@host/0") == "rediss://:***@host/0"


def test_log_records_are_masked(caplog: pytest.LogCaptureFixture) -> None:
    mask_logs()
    logging.getLogger("some.library").warning("connects to %s", REDIS)
    assert "reader:***@" in caplog.text and SECRET not in caplog.text


def test_a_manifest_is_masked_and_its_identity_is_not_changed(tmp_path: Path) -> None:
    class Section(FrozenConfig):
        features: str = REDIS

    def build(secret: str, **options: Any) -> Any:
        config, inputs = Section(features=REDIS.replace(SECRET, secret)), {"teacher": TEACHER.replace(SECRET, secret)}
        return run_stage("label", tmp_path / "out", config=config, inputs=inputs, build=lambda _: {}, **options)

    first = build(SECRET)
    assert SECRET not in (tmp_path / "out" / "manifest.json").read_text() and SECRET not in str(first.manifest)
    assert first.manifest["config"]["features"] == masked(REDIS)
    assert build(SECRET).skipped and not build("another").skipped


# Every command


def _wrong_config(folder: Path) -> Path:
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump({"serve": {"port": REDIS, "features": [TEACHER]}, "label": {"engine": PARAMETERS}}))
    return file


def _arguments(words: str, command: click.Command, path: str, folder: Path) -> list[str]:
    """Arguments of a command with `path` for all that it reads, and places where nothing can be written."""
    file = folder / "a-file"
    file.write_text("x")
    named = {"teacher": TEACHER, "address": CLUSTER, "to": REDIS, "workspace": str(file), "out": str(file)}
    arguments: list[str] = []
    for parameter in command.params:
        name = parameter.name or ""
        metavar = getattr(parameter, "metavar", "") or ""
        option = parameter.param_type_name == "option"
        if not (parameter.required or name in named or "PATH" in metavar):
            continue
        value = named.get(name, path if "PATH" in metavar else TEACHER)
        if option:
            arguments += [max(parameter.opts, key=len), value]
        elif words == "submit":
            arguments += ["train", "--samples", path]
        elif parameter.nargs == 1 or parameter.required:
            arguments.append(value if words != "config explain" else "serve")
    return arguments


def _run(words: str, arguments: list[str]) -> None:
    """Run a command in this process; how it ends is no matter of this test."""
    try:
        main([*words.split(), *arguments])
    except SystemExit:
        pass
    except Exception as error:  # a bug of ours, whose traceback would be printed
        print(repr(error), file=sys.stderr)


def _written(folder: Path) -> Iterator[str]:
    """Names and contents of all files, without what the test planted itself."""
    for file in folder.rglob("*"):
        yield str(file.relative_to(folder))
        if file.is_file() and file.name not in ("settings.yaml", "right.yaml", "tokens"):
            yield file.read_bytes().decode("utf-8", "replace")


def _all_commands() -> Iterator[tuple[str, click.Command]]:
    table = command_table()
    for words in COMMANDS:
        name, *inner = words.split()
        group: Any = table
        if inner:
            group, name = table.commands[name], inner[0]
        yield words, group.command_of(name)


LEAST_SHOWN: dict[str, tuple[str, ...]] = {
    "settings": ("jobs list", "config show", "config explain"),
    "uris": ("validate", "label", "distill", "build-samples", "train", "evaluate", "publish", "score", "report"),
    "wrong-settings": ("demo", "train", "serve", "teacher serve", "publish", "pipeline", "doctor"),
}
"""Commands that show a masked URL, by how the secrets are planted."""


@pytest.mark.parametrize("variant", LEAST_SHOWN)
def test_no_command_writes_a_secret(variant: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{SECRET}-in-a-file\n")
    right = tmp_path / "right.yaml"
    serve = {"features": REDIS, "security": {"tokens_file": str(tokens)}}
    pipeline = {"workspace": str(tmp_path / "a-file"), "source": str(tmp_path / "nowhere")}
    right.write_text(yaml.safe_dump({"serve": serve, "pipeline": pipeline, "label": {"http": {"timeout_seconds": 1}}}))
    ran: list[str] = []
    showed: list[str] = []
    for words, command in _all_commands():
        options = {option for parameter in command.params for option in parameter.opts}
        arguments = _arguments(words, command, STORAGE if variant == "uris" else str(tmp_path / "nowhere"), tmp_path)
        if "--config" in options:
            config = _wrong_config(tmp_path) if variant == "wrong-settings" else right
            arguments += ["--config", str(config), "--set", f"serve.features={REDIS}"]
        arguments += [option for option in ("--json", "-v") if option in options]
        if words == "demo":
            arguments += ["--tables", str(tmp_path / "nowhere")]
        _run(words, arguments)
        out, error = capfd.readouterr()
        ran.append(words)
        if "***" in out + error:
            showed.append(words)
        for text in (out, error):
            assert SECRET not in text, f"prectr {words} {' '.join(arguments)}:\n{text}"
    assert ran == list(COMMANDS)
    assert set(LEAST_SHOWN[variant]) <= set(showed), "else the test says little"
    assert [text[:200] for text in _written(tmp_path) if SECRET in text] == []


def test_a_uri_with_a_password_makes_no_directory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"s3://access:\*\*\*@bucket/folder: a URI must hold no password"):
        mirror.local_path(STORAGE)
    assert list(tmp_path.iterdir()) == []


# Redis


def test_a_redis_password_is_in_no_message() -> None:
    with pytest.raises(PrectrError) as raised:
        RedisState(REDIS, RedisGuard(REDIS, 0.2, 0.0))
    assert SECRET not in str(raised.value) and "reader:***@127.0.0.1" in str(raised.value)
    wrong = f"redis://reader:{SECRET}/with@odd:signs/0"
    with pytest.raises(UsageError, match="not a Redis address") as refused:
        RedisGuard(wrong, 0.2, 0.0)
    assert SECRET not in str(refused.value) and refused.value.__cause__ is None


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    server.stop()


def test_the_password_comes_from_the_environment_or_a_file_that_may_change(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import redis

    admin = redis.Redis(port=redis_server.port)
    admin.config_set("requirepass", "first")
    admin.execute_command("AUTH", "first")
    admin.execute_command("ACL", "SETUSER", "reader", "on", ">second", "~*", "+@all")

    def answers(url: str = redis_server.url) -> bool:
        guard = RedisGuard(url, 2.0, 0.0)
        try:
            return bool(guard.call(lambda client: client.ping()))
        except StoreDown:
            return False
        finally:
            guard.close()

    assert not answers()  # the planted one is wrong
    monkeypatch.setenv(PASSWORD, "first")
    assert answers()
    monkeypatch.setenv(USERNAME, "reader")
    assert not answers()
    file = tmp_path / "password"
    file.write_text("second\n")
    monkeypatch.setenv(PASSWORD_FILE, str(file))
    assert answers()
    assert answers(f"redis://default:first@127.0.0.1:{redis_server.port}/0"), "a password in the URL wins"

    guard = RedisGuard(redis_server.url, 2.0, 0.0)
    assert guard.call(lambda client: client.ping())
    admin.execute_command("ACL", "SETUSER", "reader", "resetpass", ">third")
    admin.client_kill_filter(_type="normal", skipme=True)
    file.write_text("third\n")
    with pytest.raises(StoreDown):
        for _ in range(3):
            guard.call(lambda client: client.ping())
            break
        else:
            raise StoreDown
        raise StoreDown  # the new connection read the new password
    assert guard.call(lambda client: client.ping())
    guard.close()
    monkeypatch.setenv(PASSWORD_FILE, str(tmp_path / "missing"))
    with pytest.raises(UsageError, match="the password cannot be read"):
        RedisGuard(redis_server.url, 2.0, 0.0)
