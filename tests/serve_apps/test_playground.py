"""The playground: what it asks the server for, and the page in a real browser."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from prectr.contracts.model_config import LEVELS, ModelConfig
from prectr.contracts.protocol import MAX_TEXT
from prectr.features.derive import QUERY_PREFERENCE
from prectr.ranking.bundle import Bundle
from prectr.ranking.ranking import Ranking
from prectr.serving.config import ModelsConfig, ServeConfig
from tests.prectr.bundle_world import make_world
from tests.prectr.conftest import draw_log, mine
from tests.processes import free_port
from tests.serve_apps.conftest import plain_server

PHONE = {"width": 390, "height": 844}
TOKEN = "a-token-of-the-playground-test"


@dataclass(frozen=True)
class Served:
    """A server and what it serves."""

    address: str
    bundles: dict[str, Path]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    laboratory = SimpleNamespace(
        draw_log=draw_log, mine=lambda *log, **options: mine(tmp_path_factory.mktemp("log"), *log, **options)
    )
    root = tmp_path_factory.mktemp("playground")
    names = ("prectr-v2", "wide-deep")
    return {name: make_world(laboratory, root / name, ModelConfig(name=name)).bundle for name in names}


@contextmanager
def _serving(bundles: dict[str, Path]) -> Iterator[str]:
    with plain_server(ServeConfig(port=free_port(), models=ModelsConfig(bundles=bundles), drain_seconds=1)) as url:
        yield f"{url}/"


@pytest.fixture(scope="module")
def served(bundles: dict[str, Path]) -> Iterator[Served]:
    with _serving(bundles) as address:
        yield Served(address, bundles)


# What the page asks for


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.address, timeout=30) as client:
        yield client


def test_what_to_begin_with_is_known_and_the_cold_user_is_not(client: httpx.Client) -> None:
    start, again = (client.get("v1/playground/start").json() for _ in range(2))
    assert start["models"] == ["prectr-v2", "wide-deep"] and start["default_model"] == "prectr-v2"
    assert {entry["query"] for entry in start["queries"]} == {"nokia 3310", "phone", "sofa"}
    assert start["cold_user"] != again["cold_user"] and start["users"] == again["users"]
    users = {entry["user_id"]: entry for entry in start["users"]}
    assert set(users) == {"golden-active", "golden-picky", "golden-tolerant", "golden-new"}, "no user of the log"
    for user in [*users, start["cold_user"]]:
        answer = client.post("v1/score", json={"user_id": user, "query": "phone", "candidates": ["i0"]}).json()
        assert answer["user_known"] == (user in users)
        if user in users:
            assert answer["earlier_requests"] == users[user]["earlier_requests"]
            assert answer["user_tolerance"] == pytest.approx(users[user]["tolerance"], rel=1e-9)
    picky, tolerant = (
        next(entry["tolerance"]["mean"] for entry in start["users"] if entry["kind"] == kind)
        for kind in ("picky", "tolerant")
    )
    assert picky > tolerant


def test_real_users_are_offered_only_where_a_setting_says_so(served: Served, tmp_path: Path) -> None:
    bundle = shutil.copytree(served.bundles["prectr-v2"], tmp_path / "copy")  # a process maps a state once
    models = ModelsConfig(bundles={"v2": bundle})
    config = ServeConfig(models=models, port=free_port(), playground_users=True)
    with plain_server(config) as url:
        start = httpx.get(f"{url}/v1/playground/start", timeout=30).json()
    users = {entry["user_id"] for entry in start["users"]}
    assert len(users) >= 3 and users <= {f"u{number}" for number in range(100)}


def test_candidates_are_those_seen_with_the_query_then_those_that_share_words(client: httpx.Client) -> None:
    answer = client.get("v1/playground/search", params={"query": "  PHONE"}).json()
    assert {item["item_id"] for item in answer["candidates"]} == {f"i{number}" for number in range(5)}
    assert {item["source"] for item in answer["candidates"]} == {"seen"}
    assert answer["catalogue_items"] == 5 and not answer["catalogue_cut"]
    assert {item["item_id"]: item["price"] for item in answer["candidates"]}["i3"] is None

    by_words = client.get("v1/playground/search", params={"query": "nokia 2 never typed", "limit": 2}).json()
    assert [item["item_id"] for item in by_words["candidates"]] == ["i2", "i0"]
    assert {item["source"] for item in by_words["candidates"]} == {"words"}
    assert client.get("v1/playground/search", params={"query": "unheard of"}).json()["candidates"] == []


@pytest.mark.parametrize("query", ["nokia 3310", "sofa", "never typed"])
def test_preferences_are_the_numbers_that_ranking_reads(served: Served, client: httpx.Client, query: str) -> None:
    preferences = client.get("v1/playground/preferences", params={"query": f" {query.upper()} "}).json()
    bundle = served.bundles["prectr-v2"].parent / "copy"
    shutil.copytree(served.bundles["prectr-v2"], bundle, dirs_exist_ok=True)  # a process maps a state once
    ranking = Ranking(Bundle.open(bundle))
    try:
        # An item of the query's own category. An unknown query has none, and an unknown category backs off like none.
        category = {"category": preferences["category"] or "unheard of"}
        item = {"item_id": "x", "title": "x", **category}
        features = ranking.features.request("nobody", query, [item], 1.8e9)
    finally:
        ranking.close()
    read = {name: features.derived["query_preference"][name][0] for name in QUERY_PREFERENCE}
    for level in range(LEVELS):
        entry = preferences["levels"][level]
        assert np.log(entry["rate"]) == pytest.approx(read[f"level_{level}_rate"])
        assert entry["click_share"] == pytest.approx(read[f"level_{level}_click_share"])
        assert np.log1p(entry["impressions"]) == pytest.approx(read[f"level_{level}_impressions"])
    assert preferences["backed_off"] == bool(read["backed_off"])
    assert np.log1p(preferences["users"]) == pytest.approx(read["query_users"])
    assert (preferences["tolerance"]["mean"], preferences["tolerance"]["deviation"]) == pytest.approx(
        features.query_tolerance
    )
    assert preferences["known"] == (query != "never typed") == features.query_known
    if not preferences["known"]:
        assert all(entry["rate"] == pytest.approx(entry["rate_above"]) for entry in preferences["levels"])
        # A posterior after nothing went through a logarithm, the usual one did not: equal but for float64 rounding.
        assert preferences["tolerance"] == pytest.approx(preferences["usual_tolerance"], rel=1e-9)


@pytest.mark.parametrize(
    "path", ["search?query=", "search", f"search?query={'x' * (MAX_TEXT + 1)}", "search?query=a&limit=201",
             "search?query=a&limit=0", "preferences?query=", f"preferences?query={'x' * (MAX_TEXT + 1)}"],
)  # fmt: skip
def test_too_much_and_too_little_is_refused(client: httpx.Client, path: str) -> None:
    assert client.get(f"v1/playground/{path}").status_code == 422


def test_the_page_may_run_its_own_script_only(client: httpx.Client) -> None:
    answer = client.get("")
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy and policy.count("'sha256-") == 2
    assert not re.search(r"""(src|href)=["'](?!data:)|\sstyle=|\son[a-z]+=["']""", answer.text)


# The page, in a browser


@dataclass
class Opened:
    """The page in a browser, and all that it asked for."""

    tab: Any
    requests: list[Any] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def rank(self, query: str) -> None:
        self.tab.fill("#query", query)
        self.tab.press("#query", "Enter")
        self.settle()

    def settle(self) -> None:
        """Until the list is there and nothing is being asked for."""
        self.tab.wait_for_selector("#results[aria-busy=false] .item")
        self.tab.wait_for_load_state("networkidle")

    def items(self) -> list[str]:
        return self.tab.locator("#results .title").all_inner_texts()

    def text(self, selector: str) -> str:
        return self.tab.inner_text(selector)

    def bodies(self, path: str) -> list[dict[str, Any]]:
        """What was sent to a path."""
        return [request.post_data_json for request in self.requests if request.url.endswith(path)]


@pytest.fixture
def opened(browser: Any, served: Served) -> Iterator[Opened]:
    with_page = _open(browser, served.address)
    yield with_page
    _check_and_close(with_page, served.address)
    assert with_page.problems == []


def _open(browser: Any, address: str, **options: Any) -> Opened:
    opened = Opened(browser.new_page(reduced_motion="reduce", **options))
    opened.tab.set_default_timeout(20_000)
    opened.tab.on("request", lambda request: opened.requests.append(request))
    opened.tab.on(
        "console", lambda line: opened.problems.append(line.text) if line.type in ("error", "warning") else None
    )
    opened.tab.on("pageerror", lambda error: opened.problems.append(str(error)))
    opened.tab.goto(address)
    return opened


def _check_and_close(opened: Opened, address: str) -> None:
    opened.tab.wait_for_load_state("networkidle")
    assert {request.url[: len(address)] for request in opened.requests if not request.url.startswith("data:")} == {
        address
    }
    opened.tab.close()


def test_a_typed_query_is_ranked_and_explained(opened: Opened, client: httpx.Client) -> None:
    opened.tab.wait_for_selector("#users .chip")
    opened.rank("  Nokia   3310 ")
    (asked,) = opened.bodies("v1/score")
    answer = client.post("v1/score", json=asked).json()
    assert opened.items() == [entry["title"] for entry in answer["results"]] and len(opened.items()) == 5
    assert "5 of 5 candidates" in opened.text("#status") and "prectr-v2" in opened.text("#facts")
    assert "cold user" in opened.text("#facts") and "known query" in opened.text("#facts")
    mean, deviation = (answer["query_tolerance"][name] for name in ("mean", "deviation"))
    assert opened.text("#query-tolerance").strip() == f"{mean:.3f} ± {deviation:.3f}"
    assert "round trip" in opened.text("#latency") and "features" in opened.text("#latency")
    widths = opened.tab.locator("#results li:first-child .levels span").evaluate_all(
        "(parts) => parts.map((part) => parseFloat(part.style.width) / 100)"
    )
    assert widths == pytest.approx(answer["results"][0]["level_probabilities"], abs=1e-4)
    mark = opened.tab.locator("#results li:first-child .query-colour.tick").first
    assert mark.evaluate("(mark) => parseFloat(mark.style.left) / 100") == pytest.approx(mean, abs=1e-4)
    mined = opened.text("#mined")
    assert "strong" in mined and f"{mean:.3f}" in mined

    opened.tab.locator(".why").first.click()
    why = opened.tab.locator(".reasons").first
    explained = answer["results"][0]["explanation"]
    assert f"{100 * explained['acceptance']:.1f} % clicks" in why.inner_text()
    assert "P(click | level)" in why.inner_text()
    opened.tab.locator(".why").first.click()
    assert not why.is_visible()


def test_what_is_not_known_is_said(opened: Opened) -> None:
    opened.rank("nokia never typed")
    assert "unknown query" in opened.text("#facts")
    assert "No user typed this query" in opened.text("#mined")
    opened.tab.fill("#query", "unheard of")
    opened.tab.press("#query", "Enter")
    opened.tab.wait_for_selector("#results .empty")
    assert "No candidates" in opened.text("#status") and opened.items() == []
    opened.rank("phone")  # and goes on
    assert len(opened.items()) == 5


def test_another_user_has_another_tolerance(opened: Opened) -> None:
    opened.tab.wait_for_selector("#users .chip")
    opened.rank("phone")
    seen = {}
    for kind in ("cold", "picky", "tolerant"):
        opened.tab.locator("#users .chip", has_text=re.compile(f"^{kind}")).click()
        opened.settle()
        seen[kind] = opened.text("#user-tolerance")
        assert ("cold user" in opened.text("#facts")) == (kind == "cold")
    assert len(set(seen.values())) == 3
    opened.tab.fill("#user", "u1")
    opened.tab.press("#user", "Enter")
    opened.settle()
    assert opened.bodies("v1/score")[-1]["user_id"] == "u1"


def test_a_click_is_told_and_moves_tolerance_and_order(opened: Opened, client: httpx.Client) -> None:
    opened.tab.wait_for_selector("#users .chip")
    with opened.tab.expect_response("**/v1/score") as first:
        opened.rank("phone")
    shown, before, tolerance = first.value.json(), opened.items(), opened.text("#user-tolerance")
    last = opened.tab.locator("#results .item").last
    with opened.tab.expect_response("**/v1/score") as second:
        last.click()
    opened.settle()
    (body,) = opened.bodies("v1/events")
    (event,) = body["events"]
    assert event["request_id"] == shown["request_id"] and event["query"] == "phone"
    assert [item["item_id"] for item in event["shown"]] == [entry["item_id"] for entry in shown["results"]]
    assert [item["position"] for item in event["shown"]] == [1, 2, 3, 4, 5]
    assert [item["clicked"] for item in event["shown"]] == [False] * 4 + [True]

    after = second.value.json()
    assert after["user_known"] and after["user_tolerance"] != shown["user_tolerance"]
    was, now = shown["user_tolerance"]["mean"], after["user_tolerance"]["mean"]
    assert opened.text("#user-tolerance") != tolerance
    assert f"was {was:.3f}" in opened.text("#user-tolerance") and f"{was:.3f} → {now:.3f}" in opened.text("#status")
    assert opened.tab.locator("#user-scale .ghost").is_visible()
    assert "next order" in opened.text("#status") and before[-1] in opened.text("#status")
    assert opened.items() == [entry["title"] for entry in after["results"]]
    assert opened.tab.locator(".clicked").count() == 1
    ranks = {entry["item_id"]: entry["rank"] for entry in shown["results"]}
    moved = [ranks[entry["item_id"]] - entry["rank"] for entry in after["results"]]
    told_moves = opened.tab.locator(".moved").all_inner_texts()
    assert told_moves == [f"▲ {move}" if move > 0 else f"▼ {-move}" if move else "" for move in moved]
    assert f"{sum(map(bool, moved))} of 5 items moved" in opened.text("#status")


def test_another_model_answers(opened: Opened) -> None:
    opened.rank("phone")
    probabilities = opened.tab.locator(".probability").all_inner_texts()
    opened.tab.select_option("#model", "wide-deep")
    opened.tab.wait_for_selector("#facts :text('wide-deep')")
    opened.settle()
    assert opened.bodies("v1/score")[0].get("model") is None
    assert opened.bodies("v1/score")[-1]["model"] == "wide-deep"
    assert opened.tab.locator(".probability").all_inner_texts() != probabilities
    opened.tab.locator(".why").first.click()
    assert "no τ" in opened.tab.locator(".reasons").first.inner_text()


def test_everything_can_be_done_with_the_keyboard(opened: Opened) -> None:
    opened.tab.wait_for_selector("#users .chip")
    keys = opened.tab.keyboard
    focused = "document.activeElement.id || document.activeElement.className"

    def tab_to(selector: str) -> None:
        for _ in range(60):
            if opened.tab.evaluate(focused) == selector:
                return
            keys.press("Tab")
        pytest.fail(f"Tab does not reach {selector}")

    tab_to("query")
    keys.type("sofa")
    tab_to("user")
    keys.press("Control+A")
    keys.type("u2")
    keys.press("Enter")
    opened.settle()
    assert opened.bodies("v1/score")[-1]["user_id"] == "u2"
    tab_to("item")
    ring = opened.tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert ring == "solid"
    name = opened.tab.evaluate("document.activeElement.querySelector('.title').textContent")
    with opened.tab.expect_response("**/v1/events"), opened.tab.expect_response("**/v1/score"):
        keys.press("Enter")
    opened.settle()
    # Where the focus was it stays, wherever the item went.
    assert opened.tab.evaluate("document.activeElement.closest('.item')?.querySelector('.title').textContent") == name
    tab_to("why")
    keys.press("Space")
    assert opened.tab.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    unnamed = opened.tab.locator("button, input:not([type=hidden]), select").evaluate_all(
        "(all) => all.filter((one) => !(one.labels?.length || one.textContent.trim() || one.ariaLabel)).length"
    )
    assert unnamed == 0
    assert opened.tab.get_attribute("#status", "aria-live") == "polite"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_in_one_direction_only(browser: Any, served: Served, scheme: str) -> None:
    opened = _open(browser, served.address, viewport=PHONE, color_scheme=scheme)
    opened.tab.wait_for_selector("#users .chip")
    tops = "['#user-scale', '#status', '#results'].map((name) => document.querySelector(name).offsetTop)"
    before = opened.tab.evaluate(tops)
    opened.rank("nokia 3310")
    opened.tab.locator("#results .item").nth(1).click()
    opened.settle()
    assert opened.tab.evaluate(tops) == before  # nothing that is being read or aimed at jumps
    opened.tab.locator(".why").first.click()
    assert opened.tab.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    # A finger needs a target of some size, wherever it clicks an item.
    boxes = [item.bounding_box() for item in opened.tab.locator("#results .item").all()]
    assert all(box["height"] >= 40 and box["x"] + box["width"] <= PHONE["width"] for box in boxes)
    light = opened.tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", light))) > 600) == (scheme == "light")
    _check_and_close(opened, served.address)
    assert opened.problems == []


def test_a_token_is_asked_for_and_kept_in_the_tab(
    browser: Any, bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(bundles["prectr-v2"], tmp_path / "bundle")  # a process maps a state once
    monkeypatch.setenv("PRECTR_SERVE_TOKENS", TOKEN)
    with _serving({"only": copy}) as address:
        opened = _open(browser, address)
        dialog = opened.tab.locator("#token-dialog")
        opened.tab.wait_for_selector("#token-dialog[open]")
        opened.tab.keyboard.type("not the right one")
        opened.tab.keyboard.press("Enter")
        opened.tab.wait_for_selector("#token-problem:has-text('does not accept')")
        opened.tab.keyboard.type(TOKEN)
        opened.tab.keyboard.press("Enter")
        opened.tab.wait_for_selector("#users .chip")
        assert not dialog.is_visible()
        opened.rank("phone")
        assert len(opened.items()) == 5
        opened.tab.reload()
        opened.tab.wait_for_selector("#users .chip")
        assert not dialog.is_visible()
        assert TOKEN not in "".join(request.url for request in opened.requests)
        assert opened.tab.evaluate("Object.keys(localStorage).length + document.cookie.length") == 0
        _check_and_close(opened, address)
        assert {problem for problem in opened.problems if "401" not in problem} == set()


def test_what_the_server_cannot_have_is_said(opened: Opened) -> None:
    def degraded(route: Any) -> None:
        answer = route.fetch().json()
        route.fulfill(json=answer | {"degraded": ["features"], "unscored": ["gone"]})

    opened.tab.route("**/v1/score", degraded)
    opened.rank("phone")
    assert "degraded: the feature store" in opened.text("#facts") and "gone" in opened.text("#facts")
    opened.tab.unroute("**/v1/score")
    busy = {"status": 429, "headers": {"Retry-After": "7"}, "json": {"detail": "too many requests wait"}}
    opened.tab.route("**/v1/score", lambda route: route.fulfill(**busy))
    opened.tab.press("#query", "Enter")
    opened.tab.wait_for_selector("#status.problem")
    assert "try again in 7 s" in opened.text("#status")
    opened.tab.unroute("**/v1/score")
    opened.problems[:] = [problem for problem in opened.problems if "429" not in problem]
