"""Alert rules: well formed, tried both ways, about metrics that exist, each with a runbook."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from tests.ops.tools import OPS, require_tool, run
from zipnet.observe.metrics import NodeMetrics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RULES = OPS / "prometheus" / "zipnet.rules.yml"
CASES = OPS / "prometheus" / "zipnet.rules.test.yml"
SAFETY_ALERTS = {
    *("ZipnetSafeMode", "ZipnetPartialsRefused", "ZipnetWriteFailed", "ZipnetIntegrity"),
    "ZipnetSequenceGap",
}


def _rules() -> Iterator[dict[str, object]]:
    for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"]:
        yield from group["rules"]


def _alerts() -> dict[str, dict[str, object]]:
    return {str(rule["alert"]): rule for rule in _rules() if "alert" in rule}


def _exported() -> tuple[set[str], bytes]:
    registry = CollectorRegistry()
    metrics = NodeMetrics(registry, instance="acme.mainnet", role="server")
    for by_reason in (metrics.rounds_aborted, metrics.partials_refused, metrics.rejected):
        by_reason.inc("version")
    for labelled in (metrics.uds_denied, metrics.auth_failures, metrics.integrity_fail):
        labelled.inc("record")
    for gauge in (metrics.not_ready, metrics.degraded):
        gauge.set("no_leader", 1)
    metrics.version_supported(1, supported=True)
    metrics.breaker_seconds("server_1", 0.0)
    metrics.key_expires("identity", 0.0)
    text = generate_latest(registry)
    names = {re.split(r"[{ ]", line)[0] for line in text.decode().splitlines() if line[:1] != "#"}
    return names, text


def _with_alert_expression(path: Path, expression: str) -> None:
    document = yaml.safe_load(RULES.read_text("utf-8"))
    for group in document["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                rule["expr"] = expression
                rule.pop("for", None)
                rule.pop("annotations")  # rendering them takes most of the time
    (path / RULES.name).write_text(yaml.safe_dump(document), "utf-8")
    (path / CASES.name).write_text(CASES.read_text("utf-8"), "utf-8")


def test_rules_are_accepted_by_promtool() -> None:
    result = run(require_tool("promtool"), "check", "rules", RULES)
    assert result.returncode == 0, result.stdout


def test_each_alert_fires_when_it_should_and_stays_quiet_when_it_should() -> None:
    result = run(require_tool("promtool"), "test", "rules", CASES.name, cwd=CASES.parent)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    "expression", ["vector(1)", "vector(0) > 1"], ids=["always firing", "never firing"]
)
def test_the_cases_of_every_alert_notice_a_broken_rule(expression: str, tmp_path: Path) -> None:
    promtool = require_tool("promtool")
    _with_alert_expression(tmp_path, expression)
    result = run(promtool, "test", "rules", CASES.name, cwd=tmp_path)
    noticed = re.findall(r'expr: .*alertname=\\"(\w+)\\"', result.stdout)
    assert (result.returncode != 0, set(noticed)) == (True, set(_alerts())), result.stdout


def test_each_alert_has_a_firing_and_a_quiet_case() -> None:
    counted: Counter[tuple[str, str]] = Counter()
    for case in yaml.safe_load(CASES.read_text("utf-8"))["tests"]:
        alert, verdict = str(case["name"]).split(":")[0].split(" ")
        expected = case["promql_expr_test"][0]
        assert f'alertname="{alert}"' in expected["expr"]
        assert bool(expected["exp_samples"]) == (verdict == "fires")
        counted[alert, verdict] += 1
    assert {alert for alert, _ in counted} == set(_alerts())
    for alert in _alerts():
        assert counted[alert, "fires"], alert
        assert counted[alert, "quiet"], alert


def test_rules_and_cases_speak_only_of_metrics_that_a_node_exports() -> None:
    exported, _ = _exported()
    recorded = {str(rule["record"]) for rule in _rules() if "record" in rule}
    for path in (RULES, CASES):
        expressions = re.findall(r"[a-z_:0-9]*\bzipnet_[a-z_:0-9]+", path.read_text("utf-8"))
        used = set(expressions) - recorded - {"zipnet_instance"}
        assert used, path
        assert used <= exported, f"{path.name}: {sorted(used - exported)}"


def test_what_a_node_exports_is_accepted_by_promtool() -> None:
    promtool = require_tool("promtool")
    _, text = _exported()
    result = run(promtool, "check", "metrics", stdin=text.decode())
    assert result.returncode == 0, result.stdout


def test_alerts_say_how_urgent_they_are_and_where_to_read_on() -> None:
    for name, rule in _alerts().items():
        labels, annotations = rule["labels"], rule["annotations"]
        assert isinstance(labels, dict)
        assert isinstance(annotations, dict)
        assert labels["severity"] in {"page", "ticket", "info"}, name
        assert set(annotations) == {"summary", "description", "runbook_url"}, name
        assert annotations["runbook_url"] == f"ops/runbooks/{name}.md"
        # A safety alert fires at once; every other one waits, so that a blip wakes nobody.
        assert ("for" in rule) != (name in SAFETY_ALERTS), name


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    pages = {page.stem: page.read_text("utf-8") for page in (OPS / "runbooks").glob("*.md")}
    exported = _exported()[0] | {"zipnet_instance"}
    assert set(pages) == set(_alerts())
    for name, text in pages.items():
        assert text.startswith(f"# {name}\n\n")
        assert "\n## Look\n" in text, name
        assert "\n## Do\n" in text, name
        for mentioned in re.findall(r"\bzipnet_[a-z_]+", text):
            assert mentioned in exported, f"{name}: {mentioned}"
        for alert in re.findall(r"\bZipnet[A-Z]\w+", text):
            assert alert in pages, f"{name}: {alert}"
