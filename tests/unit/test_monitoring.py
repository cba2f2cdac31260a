"""Rules and dashboard ask for metrics that there are, and each alert says what to do."""

import json
import re
from collections.abc import Iterator

import pytest
import yaml

from consumer.telemetry.metrics import METRICS, Kind
from tests.conftest import ROOT

RULES = ROOT / "deploy/prometheus/rules.yaml"
DASHBOARD = ROOT / "deploy/grafana/imagelane.json"
OF_A_SCRAPE = {"namespace", "pod"}
# Of prometheus-client and of kube-state-metrics, each with the labels that are used here.
OTHERS = {
    "process_cpu_seconds_total": set(),
    "process_resident_memory_bytes": set(),
    "kube_pod_container_status_last_terminated_exitcode": {"container"},
    "kube_pod_container_status_restarts_total": {"container"},
}
SUFFIXES = {Kind.HISTOGRAM: ("_bucket", "_sum", "_count"), Kind.COUNTER: ("",), Kind.GAUGE: ("",)}
SERIES = {
    metric.name + suffix: {*metric.labels, *({"le"} if suffix == "_bucket" else ())}
    for metric in METRICS.values()
    for suffix in SUFFIXES[metric.kind]
} | OTHERS


def rules() -> list[dict[str, str]]:
    return [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]


def dashboard_queries() -> Iterator[str]:
    """Every query of the dashboard: those of its panels and of its variables."""
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for variable in dashboard["templating"]["list"]:
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
        if found:
            yield f"sum by ({found[2]}) ({found[1]})"


QUERIES = sorted({*(rule["expr"] for rule in rules()), *dashboard_queries()})


@pytest.mark.parametrize("query", QUERIES)
def test_each_query_is_about_series_that_there_are(query: str) -> None:
    """Their names, and the labels that it selects and groups by."""
    code = re.sub(r'"[^"]*"', '""', query)
    names = set(re.findall(r"\b(?:imagelane|kube|process)_\w+", code))
    recorded = set(re.findall(r"\bimagelane:\w+:\w+", code))
    assert names or recorded
    assert names <= SERIES.keys()
    assert recorded <= {rule["record"] for rule in rules() if "record" in rule}

    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"\"", code))
    for grouped in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", code):
        labels |= {label.strip() for label in grouped.split(",")}
    known = set().union(OF_A_SCRAPE, {"container"}, *(SERIES[name] for name in names))
    assert labels <= known


def test_dashboard_shows_every_metric() -> None:
    """Who adds a metric adds a panel."""
    shown = " ".join(dashboard_queries())
    missing = [name for name in METRICS if name not in shown]
    assert not missing


def test_each_alert_is_in_the_docs() -> None:
    """docs/operations.md has a row for each alert, and for none that is gone."""
    text = (ROOT / "docs/operations.md").read_text()
    documented = re.findall(r"^\| `(Imagelane\w+)` \|", text, re.M)
    assert documented == [rule["alert"] for rule in rules() if "alert" in rule]


def test_exit_codes_for_a_person_are_those_of_the_docs() -> None:
    """The alert knows the codes that the table leaves to a person, and no other."""
    text = (ROOT / "docs/operations.md").read_text()
    found = re.search(r"leave ([\d, ]+) and (\d+) to a person", text)
    assert found
    for_a_person = {*re.findall(r"\d+", found[1]), found[2]}
    for name in ("ImagelanePersonNeeded", "ImagelaneRestarts"):
        [expr] = [rule["expr"] for rule in rules() if rule.get("alert") == name]
        assert set(re.findall(r"exitcode\{[^}]*\} == (\d+)", expr)) == for_a_person


def test_each_alert_has_a_test_in_which_it_fires() -> None:
    """An alert that nothing makes fire may never do."""
    tests = yaml.safe_load((RULES.parent / "rules.test.yaml").read_text())["tests"]
    fires = {
        case["alertname"]
        for test in tests
        for case in test.get("alert_rule_test", ())
        if case["exp_alerts"]
    }
    assert fires == {rule["alert"] for rule in rules() if "alert" in rule}
