"""Prometheus' own tool reads the rules, runs their tests, and reads the dashboard's queries."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.unit.test_monitoring import RULES, dashboard_queries


def run(*command: str, cwd: Path = RULES.parent) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


def test_rules(promtool: str) -> None:
    """Each alert fires when it should, with its words, and none when all is well."""
    for arguments in (["check", "rules", RULES.name], ["test", "rules", "rules.test.yaml"]):
        done = run(promtool, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("code", [66, 72, 78])
def test_tests_of_the_rules_find_a_code_that_is_missing(
    promtool: str, tmp_path: Path, code: int
) -> None:
    """A test of those tests: an exit code for a person that the alert forgets turns them red."""
    shutil.copy(RULES.parent / "rules.test.yaml", tmp_path)
    lines = RULES.read_text().splitlines(keepends=True)
    kept = [line for line in lines if f"== {code}" not in line]
    assert len(kept) == len(lines) - 2
    (tmp_path / RULES.name).write_text("".join(kept))

    assert run(promtool, "test", "rules", "rules.test.yaml", cwd=tmp_path).returncode == 1


def test_queries_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    """Prometheus can read each of them."""
    rules = [{"record": f"panel:{n}", "expr": q} for n, q in enumerate(dashboard_queries())]
    (tmp_path / "panels.json").write_text(json.dumps({"groups": [{"name": "a", "rules": rules}]}))

    done = run(promtool, "check", "rules", "panels.json", cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout
    assert ROOT.joinpath("deploy/grafana/imagelane.json").is_file()
