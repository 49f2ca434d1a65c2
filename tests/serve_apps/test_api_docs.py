"""The page at /docs: it shows the operations, and asks no server but ours, also in a real browser."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from prectr.serving.config import ServeConfig
from serve_apps.api_docs import ASSETS, add_docs
from serve_apps.http_api import create_app
from tests.processes import free_port
from tests.serve_apps.conftest import running


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app = FastAPI(title="A <b>title</b>", docs_url=None, redoc_url=None)
    add_docs(app)

    @app.get("/v1/answer")
    def answer() -> int:
        return 42

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    with running(server) as url:
        yield url


def test_the_page_names_no_other_server_and_all_its_files_are_there(url: str) -> None:
    answer = httpx.get(f"{url}/docs")
    assert "http://" not in answer.text and "https://" not in answer.text and "<b>" not in answer.text
    sources = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert {source.removeprefix("docs/") for source in sources} == set(ASSETS)
    for name, kind in ASSETS.items():
        asset = httpx.get(f"{url}/docs/{name}")
        assert asset.is_success and asset.headers["content-type"].startswith(kind) and len(asset.content) > 100
    assert httpx.get(f"{url}/docs/main.py").status_code == 404
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self' 'sha256-") and "http" not in policy


def test_the_ranker_has_this_page_and_no_other() -> None:
    service: Any = SimpleNamespace(beside_scores=None)
    routes = {getattr(route, "path", "") for route in create_app(service, ServeConfig(playground=False)).routes}
    assert {"/docs", "/docs/{name}", "/openapi.json"} <= routes and "/redoc" not in routes


def test_a_browser_shows_the_operations(browser: Any, url: str) -> None:
    tab = browser.new_page()
    requests: list[str] = []
    problems: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.goto(f"{url}/docs")
    tab.wait_for_selector(".opblock-summary-path", timeout=30_000)
    assert "/v1/answer" in tab.locator(".opblock-summary-path").first.inner_text().replace("​", "")
    tab.locator(".opblock-summary-control").first.click()
    tab.locator(".try-out__btn").click()
    tab.locator(".execute").click()
    tab.wait_for_selector(".live-responses-table")
    assert "42" in tab.locator(".live-responses-table").inner_text()
    tab.close()
    others = [one for one in requests if not one.startswith((url, "data:"))]
    assert (others, problems) == ([], [])
    assert Path(url).name in requests[0]
