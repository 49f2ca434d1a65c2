"""Alerts and board: Prometheus accepts each expression, alerts fire when they should, and each metric is exported."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from prectr.serving.config import ModelsConfig, ServeConfig
from prectr.serving.instruments import METRICS, PrometheusInstruments
from prectr.serving.service import ScoringService
from serve_apps.http_api import create_app
from tests.monitoring import FOLDER, alerts, board_expressions, promtool, rule_groups, series_named, series_of
from tests.prectr.bundle_world import World

UNIT_TESTS = Path(__file__).with_name("alerts.yaml")
RUNBOOK = FOLDER.parents[1] / "docs" / "runbook.md"
_SUFFIXES = ("_total", "_bucket", "_sum", "_count", "")


def _rules(folder: Path, groups: Any) -> Path:
    file = folder / "rules.yaml"
    file.write_text(yaml.safe_dump(groups))
    return file


def test_alerts_are_valid_and_fire_when_they_should(tmp_path: Path) -> None:
    groups = rule_groups()
    checked = promtool("check", "rules", _rules(tmp_path, groups), cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for rule in groups["groups"][0]["rules"]:  # promtool would compare their texts too
        assert set(rule.pop("annotations")) == {"summary", "description", "runbook"}
    _rules(tmp_path, groups)
    shutil.copy(UNIT_TESTS, tmp_path)
    tested = promtool("test", "rules", UNIT_TESTS.name, cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    content = UNIT_TESTS.read_text(encoding="utf-8")
    quiet = promtool("test", "rules", _rules_that_never_fire(tmp_path, content).name, cwd=tmp_path)
    assert quiet.returncode != 0, "the check can fail"


def _rules_that_never_fire(folder: Path, content: str) -> Path:
    silent = rule_groups()
    for rule in silent["groups"][0]["rules"]:
        rule.update(expr="vector(0) > 1", annotations={})
    (folder / "silent.yaml").write_text(yaml.safe_dump(silent))
    tests = folder / "silent-tests.yaml"
    tests.write_text(content.replace("[rules.yaml]", "[silent.yaml]"))
    return tests


def test_each_alert_is_tested_firing_and_silent() -> None:
    cases = [case for one in yaml.safe_load(UNIT_TESTS.read_text())["tests"] for case in one["alert_rule_test"]]
    names = {rule["alert"] for rule in alerts()}
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == names
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == names


def test_each_expression_of_the_board_is_valid(tmp_path: Path) -> None:
    rules = [{"record": f"board:{number}", "expr": text} for number, text in enumerate(board_expressions())]
    checked = promtool(
        "check", "rules", _rules(tmp_path, {"groups": [{"name": "board", "rules": rules}]}), cwd=tmp_path
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    rules[0]["expr"] = "sum by (without) (x)"
    wrong = promtool("check", "rules", _rules(tmp_path, {"groups": [{"name": "board", "rules": rules}]}), cwd=tmp_path)
    assert wrong.returncode != 0


def test_a_prometheus_without_the_operator_takes_the_example(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "prometheus.yaml", tmp_path)
    _rules(tmp_path, rule_groups()).rename(tmp_path / "prectr-rules.yaml")
    checked = promtool("check", "config", "prometheus.yaml", cwd=tmp_path)
    assert checked.returncode == 0 and f"{len(alerts())} rules found" in checked.stdout + checked.stderr
    (pods,) = yaml.safe_load_all((FOLDER / "pods.yaml").read_text())
    (endpoint,) = pods["spec"]["podMetricsEndpoints"]
    ray, _ = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())["scrape_configs"]
    names = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    renamed = [{names.get(key, key): value for key, value in one.items()} for one in endpoint["metricRelabelings"]]
    assert renamed == ray["metric_relabel_configs"], "the operator renames what the example renames"


def test_expressions_name_metrics_and_labels_that_exist_and_the_board_shows_all() -> None:
    by_name = {metric.name: metric for metric in METRICS}
    shown = set()
    for expression in [*board_expressions(), *(rule["expr"] for rule in alerts())]:
        for name in series_named([expression]):
            metric = next(by_name[name.removesuffix(end)] for end in _SUFFIXES if name.removesuffix(end) in by_name)
            assert name == metric.name + ("_total" if metric.kind == "counter" else "") or metric.kind == "histogram"
            if expression in board_expressions():
                shown.add(metric.name)
        labels = {label for metric in METRICS for label in metric.labels} | {"le"}
        for by in re.findall(r"by \(([^)]*)\)", expression):
            assert set(by.replace(" ", "").split(",")) <= labels, expression
        assert not re.search(r"prectr_\w+_sum", expression), "Ray sums the middles of the buckets, not the values"
    assert shown == set(by_name)


def test_a_scrape_without_ray_holds_each_metric_that_rules_and_board_name(world: World, tmp_path: Path) -> None:
    config = ServeConfig(models=ModelsConfig(bundles={"v2": world.bundle}), log=tmp_path / "log")
    instruments = PrometheusInstruments()
    body = {"user_id": "u0", "query": "nokia 3310", "candidates": ["i0"]}
    with TestClient(create_app(ScoringService(config, instruments), config, instruments)) as http:
        assert http.post("/v1/score", json=body).status_code == 200
        found = series_of(http.get("/metrics").text, relabelled=False)
    assert series_named([*board_expressions(), *(rule["expr"] for rule in alerts())]) <= found


def test_the_runbook_has_a_section_for_each_alert() -> None:
    headings = re.findall(r"^## (Prectr\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"


@pytest.mark.parametrize("reserved", ["without", "by", "on", "ignoring", "offset", "bool"])
def test_no_label_is_a_word_of_promql(reserved: str) -> None:
    assert all(reserved not in metric.labels for metric in METRICS)
