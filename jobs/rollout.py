"""rollout status, back: compare what servers serve with the file of models, and return to what they served before.

The file is that of `serve --models`: servers watch it, and keep each content that they have served beside it
(`prectr.serving.models_history`). To roll out is to replace the file.
"""

import difflib
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from jobs.options import Answer, command
from prectr.core.artifacts import read_manifest
from prectr.core.config import load_config
from prectr.core.errors import PrectrError, UsageError, shorten
from prectr.serving.config import ModelsConfig
from prectr.serving.models_history import earlier, folder_of, go_back, history

TOKEN_VARIABLE = "PRECTR_TOKEN"
TIMEOUT_SECONDS = 10.0

_MODELS = typer.Option("--models", help="File of models that the servers watch (serve --models).")
Url = Annotated[
    str | None, typer.Option("--url", help=f"Address of a server; its token, if any, is in {TOKEN_VARIABLE}.")
]


@command("rollout status")
def status(models: Annotated[Path | None, _MODELS] = None, url: Url = None) -> Answer:
    """Compare a server with the file of models.

    Returns:
        The answer; its exit code is 1 if the server refused the last change or serves something else than the file.

    Raises:
        UsageError: neither a file nor a server is named, or the file is no valid file of models.
        PrectrError: the server does not answer.
    """
    if models is None and url is None:
        raise UsageError("rollout status: name a server with --url, a file of models with --models, or both.")
    served = None if url is None else ask(url)
    wanted = None if models is None else load_config(ModelsConfig, models)
    differences = [] if served is None or wanted is None else compare(wanted, served)
    content = {
        "file": None if models is None else str(models),
        "url": url,
        "served": served,
        "differences": differences,
        "earlier": [] if models is None else [entry.served.isoformat(timespec="seconds") for entry in history(models)],
    }
    refused = served is not None and served["refused"] is not None
    return Answer(content, lambda: _print_status(content), exit_code=1 if differences or refused else 0)


@command("rollout back")
def back(
    models: Annotated[Path, _MODELS],
    url: Url = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until the server at --url has changed.")] = 60.0,
) -> Answer:
    """Replace the file of models by the content that was served before it.

    Returns:
        The answer; its exit code is 1 if the server at `url` did not change within `wait` seconds.

    Raises:
        UsageError: no earlier content is known, or one of its bundles is gone.
        PrectrError: the server does not answer.
    """
    entry = earlier(models)
    if entry is None:
        raise UsageError(
            f"{models}: no earlier content is known. Servers keep what they have served in {folder_of(models)}; put "
            "the content there was before into the file yourself."
        )
    wanted = load_config(ModelsConfig, entry.path)
    for name, path in wanted.bundles.items():
        if path.is_absolute() and read_manifest(path) is None:
            raise UsageError(
                f"{path}: the bundle of {name}, which was served before, is gone; restore it, or write another file."
            )
    present = models.read_text(encoding="utf-8") if models.exists() else ""
    changes = list(
        difflib.unified_diff(present.splitlines(), entry.text.splitlines(), "present", "earlier", lineterm="")
    )
    if url is not None:
        ask(url)  # before anything changes
    go_back(models, entry)
    differences = [] if url is None else _wait_until_served(wanted, url, wait)
    content = {
        "file": str(models),
        "served_before": entry.served.isoformat(timespec="seconds"),
        "changes": changes,
        "url": url,
        "differences": differences,
    }
    return Answer(content, lambda: _print_back(content), exit_code=1 if differences else 0)


def ask(url: str) -> dict[str, Any]:
    """What a server serves (`GET /v1/models`).

    Raises:
        PrectrError: it does not answer, or not with its models.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.get(f"{url.rstrip('/')}/v1/models", headers=headers, timeout=TIMEOUT_SECONDS)
        answer.raise_for_status()
        content: dict[str, Any] = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        hint = f"; put its token into {TOKEN_VARIABLE}" if "401" in str(error) else ""
        raise PrectrError(f"{url}: the server does not say what it serves ({shorten(error)}){hint}.") from None
    return content


def compare(wanted: ModelsConfig, served: dict[str, Any]) -> list[str]:
    """How a server differs from a file of models, in words. Bundles that cannot be read from here count as equal."""
    differences = []
    for name in sorted({*wanted.bundles, *served["models"]}):
        if name not in wanted.bundles or name not in served["models"]:
            where = "served, but not in the file" if name in served["models"] else "in the file, but not served"
            differences.append(f"{name}: {where}")
        elif (manifest := read_manifest(wanted.bundles[name])) and manifest["identity"] != served["models"][name]:
            differences.append(
                f"{name}: served is {served['models'][name]}, the file's bundle is {manifest['identity']}"
            )
    for what, in_file in (
        ("default_model", wanted.control),
        ("experiment", wanted.experiment.name),
        ("shares", wanted.experiment.shares),
        ("shadow", wanted.shadow and wanted.shadow.model),
    ):
        if served[what] != in_file:
            differences.append(f"{what}: served is {served[what]}, the file says {in_file}")
    return differences


def _wait_until_served(wanted: ModelsConfig, url: str, seconds: float) -> list[str]:
    """Poll a server until it serves these models; returns what differs at the end."""
    deadline = time.monotonic() + seconds
    while True:
        differences = [f"{url} did not answer"]
        with suppress(PrectrError):
            differences = compare(wanted, ask(url))
        if not differences or time.monotonic() >= deadline:
            return differences
        time.sleep(0.5)


def _print_status(content: dict[str, Any]) -> None:
    served = content["served"]
    if served is not None:
        for name, version in served["models"].items():
            share = served["shares"].get(name)
            role = "default" if name == served["default_model"] else "shadow" if name == served["shadow"] else "other"
            print(f"{name}  {version}  {role if share is None else f'{share:.1%} of the users'}")
        print(f"state {served['state_version']}, {served['state_age_seconds'] / 3600:.1f} h old")
        if served["refused"] is not None:
            print(f"the last change was refused: {served['refused']}")
    for line in content["differences"]:
        print(f"differs: {line}")
    if served is not None and content["file"] is not None and not content["differences"]:
        print(f"the server serves {content['file']}")
    if content["file"] is not None:
        print(f"contents that were served: {len(content['earlier'])}{_last(content['earlier'])}")


def _last(times: list[str]) -> str:
    return f", the last since {times[-1]}" if times else ""


def _print_back(content: dict[str, Any]) -> None:
    print("\n".join(content["changes"]))
    print(f"{content['file']} is what was served from {content['served_before']} on")
    for line in content["differences"]:
        print(f"not yet served: {line}")
    if content["url"] is not None and not content["differences"]:
        print(f"{content['url']} serves it")
