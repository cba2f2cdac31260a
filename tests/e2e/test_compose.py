"""The compose file as a user runs it: images built, everything up, pictures published and read."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from schemas import Code, decode_result
from tests.conftest import ROOT, require_docker
from tests.containers import KAFKA_IMAGE, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.docker]

PICTURES = ROOT / "examples" / "pictures"
RIGHT_CAPTIONS = 0.9  # of the pictures whose encoding keeps what the caption names


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """One compose project of its own."""

    environment: dict[str, str]

    def compose(self, *arguments: str, timeout_seconds: float = 120) -> str:
        """Run docker compose and return what it prints; fail with all it said if it fails."""
        done = _compose(self.environment, *arguments, timeout_seconds=timeout_seconds)
        assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stderr}"
        return done.stdout

    def read(self, topic: str, count: int, idle_seconds: int = 60) -> list[str]:
        """Read up to `count` records with Kafka's own console consumer, headers before value.

        It ends early when nothing comes for `idle_seconds`.
        """
        printed = self.compose(
            *("exec", "-T", "kafka", "/opt/kafka/bin/kafka-console-consumer.sh"),
            *("--bootstrap-server", "localhost:19092", "--topic", topic, "--from-beginning"),
            *("--isolation-level", "read_committed"),
            *("--formatter-property", "print.headers=true"),
            *("--max-messages", str(count), "--timeout-ms", str(idle_seconds * 1000)),
        )
        return printed.splitlines()


@pytest.fixture(scope="module", autouse=True)
def docker() -> None:
    require_docker(KAFKA_IMAGE)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Build and start everything with the tiny checkpoints; remove it all at the end."""
    secret = tmp_path_factory.mktemp("secrets") / "secret_api_key"
    secret.write_text(uuid4().hex * 2)
    secret.chmod(0o444)
    stack = Stack(
        environment={
            "COMPOSE_PROJECT_NAME": f"imagelane-test-{uuid4().hex[:8]}",
            "SECRET_API_KEY_FILE": str(secret),
            "KAFKA_PORT": str(free_port()),
            "GALLERY_PORT": str(free_port()),
            "CLIP_MODEL": "/models/tiny-clip",
            "BLIP_MODEL": "/models/tiny-blip",
            "PICTURES": str(PICTURES),
            "MODELS_DIR": str(ROOT / "examples" / "models"),
        }
    )
    try:
        stack.compose("up", "--build", "--detach", timeout_seconds=900)
        yield stack
    finally:
        # Shown by pytest when a test fails.
        sys.stdout.write(stack.compose("logs", "--no-color", "topics", "consumer", "gallery"))
        stack.compose("--profile", "tools", "down", "--volumes", "--timeout", "20")


def test_pictures_come_back_with_embeddings_and_captions(stack: Stack) -> None:
    """What `producer publish` sends is answered, once each, with true captions."""
    captions: dict[str, str | None] = json.loads((PICTURES / "captions.json").read_text())

    printed = stack.compose("run", "--rm", "producer", "publish", "/pictures", "--wait")
    lines = stack.read("image.results", len(captions))
    results = [decode_result(line.rpartition("\t")[2].encode()) for line in lines]

    by_name = {Path(result.image.uri).name: result for result in results if result.image}
    assert by_name.keys() == captions.keys()
    assert all(name in printed for name in captions)
    assert all(result.status == "ok" and result.embedding for result in results)
    told = {name: text for name, text in captions.items() if text is not None}
    wrong = {
        name: result.caption
        for name, result in by_name.items()
        if name in told and (not result.caption or result.caption.text != told[name])
    }
    assert len(wrong) <= (1 - RIGHT_CAPTIONS) * len(told), wrong


def test_page_shows_the_results_and_finds_pictures(stack: Stack) -> None:
    """At the published port, with pictures of the folder and a search by words."""
    page = f"http://localhost:{stack.environment['GALLERY_PORT']}"
    with urllib.request.urlopen(page + "/api/pictures?status=ok") as answer:
        pictures = json.load(answer)["pictures"]
    with urllib.request.urlopen(page + pictures[0]["image"]) as image:
        assert image.headers["Content-Type"].startswith("image/")
    search = urllib.request.Request(
        page + "/api/search",
        data=b'{"words": "two green stars on a black background"}',
        headers={"Origin": page, "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(search, timeout=60) as answer:
        assert json.load(answer)["pictures"][0]["name"] == "two-green-stars.jpg"


def test_record_of_another_secret_is_a_dead_letter_and_no_result(stack: Stack) -> None:
    """What somebody without the secret sends ends in the dead letters, with the reason."""
    forged = ("-e", f"SECRET_API_KEY={uuid4().hex * 2}", "producer")

    stack.compose("run", "--rm", *forged, "publish", "/pictures/large-red-circle.jpg")
    [letter] = stack.read("image.ingest.dlq", 1)

    assert f"dlq-code:{Code.BAD_SIGNATURE}" in letter
    forged_id = re.search(r"sig-id:([^,]+)", letter)
    assert forged_id
    assert forged_id[1] not in "".join(stack.read("image.results", 1000, idle_seconds=5))


def test_containers_run_as_a_user_of_their_own(stack: Stack) -> None:
    """Neither of our two images runs as root."""
    consumer = stack.compose("exec", "-T", "consumer", "id", "-u")
    producer = stack.compose("run", "--rm", "--entrypoint", "id", "producer", "-u")

    assert (consumer.strip(), producer.strip()) == ("10001", "10001")


def test_containers_can_change_nothing_of_their_own(stack: Stack) -> None:
    """The root is read-only, no capability is there, and none can be gained."""
    look = "touch /app/x 2>/dev/null && echo written; grep -E 'CapBnd|NoNewPrivs' /proc/self/status"
    consumer = stack.compose("exec", "-T", "consumer", "sh", "-c", look)
    producer = stack.compose("run", "--rm", "--entrypoint", "sh", "producer", "-c", look)

    for said in (consumer, producer):
        assert "written" not in said
        assert said.split() == ["CapBnd:", "0000000000000000", "NoNewPrivs:", "1"]


def test_missing_secret_is_explained() -> None:
    """Without a secret nothing starts, and the message says how to make one."""
    done = _compose({"SECRET_API_KEY_FILE": ""}, "up", timeout_seconds=30)

    assert done.returncode != 0
    assert "make secret" in done.stderr


def _compose(
    environment: dict[str, str], *arguments: str, timeout_seconds: float
) -> "subprocess.CompletedProcess[str]":
    # A .env of the checkout is the user's own, and would give the project other settings.
    return subprocess.run(
        ["docker", "compose", "--env-file", "/dev/null", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
    )


def test_images_serve_a_user_that_a_cluster_chooses(stack: Stack) -> None:
    """Any number, without a name or a home; the root stays read-only, the models are mounted."""
    arbitrary = ("--rm", "--no-deps", "--user", "1000650000:0")

    offline = ("-e", "HF_HUB_OFFLINE=1", "consumer")
    checked = stack.compose("run", *arbitrary, *offline, "check", timeout_seconds=300)
    status = stack.compose("run", *arbitrary, "producer", "status", "--json")

    assert "ok     models:" in checked, checked
    assert json.loads(status)["group"]["members"]


def test_images_say_what_they_are(stack: Stack) -> None:
    """Labels of the Open Container Initiative; a user by number, as Kubernetes wants it."""
    for side in ("consumer", "producer"):
        inspected = subprocess.run(
            ["docker", "image", "inspect", f"imagelane-{side}"], capture_output=True, check=True
        )
        config = json.loads(inspected.stdout)[0]["Config"]
        assert config["User"] == "10001"
        assert config["Labels"]["org.opencontainers.image.title"] == f"imagelane {side}"
        assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
