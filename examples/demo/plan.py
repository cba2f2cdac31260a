"""What the demo is asked to show, from the environment. Pure, but for a look at the folder."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from examples.processes import ROOT
from imagelane.exits import ExitCode, FatalError
from producer.cli.folders import FolderRules
from producer.cli.references import BadReference, entries
from producer.requests import image_request
from schemas import Request

PICTURES: Final = ROOT / "examples" / "pictures"
MOST_PICTURES: Final = 100
BLIP_IDLE_SECONDS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One of the good: its name, and the URI that is published."""

    name: str
    uri: str

    def request(self) -> Request:
        """Make a request for embedding and caption, with a new id."""
        return image_request(self.uri)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which checkpoints, whose pictures, which cluster.

    `bootstrap` None: the embedded broker. `blip_mark` is in the path of BLIP's weight file.
    """

    clip: str
    blip: str
    blip_mark: str
    tiny: bool
    pictures: Path
    bootstrap: str | None
    ingest_topic: str = "image.ingest"
    queries_topic: str = "image.queries"
    results_topic: str = "image.results"
    dlq_topic: str = "image.ingest.dlq"
    group_id: str = "imagelane-demo"

    @classmethod
    def from_env(cls, environment: Mapping[str, str], tag: str) -> Self:
        """Read `MODELS`, `PICTURES` and `BOOTSTRAP_SERVERS`; `tag` sets this run's topics apart.

        Raises:
            FatalError: `MODELS` is unknown, or `PICTURES` is no folder.
        """
        models = environment.get("MODELS") or "tiny"
        if models not in ("tiny", "hub"):
            raise FatalError(
                ExitCode.SETTINGS, f"MODELS={models}: leave it empty, or say MODELS=hub"
            )
        pictures = Path(environment.get("PICTURES") or PICTURES).resolve()
        if not pictures.is_dir():
            raise FatalError(ExitCode.SETTINGS, f"PICTURES={pictures}: no such folder")
        tiny, bootstrap = models == "tiny", environment.get("BOOTSTRAP_SERVERS") or None
        own = f".demo-{tag}" if bootstrap else ""
        folder = ROOT / "examples" / "models"
        return cls(
            clip=str(folder / "tiny-clip") if tiny else "openai/clip-vit-base-patch32",
            blip=str(folder / "tiny-blip") if tiny else "Salesforce/blip-image-captioning-base",
            blip_mark="tiny-blip" if tiny else "models--Salesforce--blip",
            tiny=tiny,
            pictures=pictures,
            bootstrap=bootstrap,
            ingest_topic=f"image.ingest{own}",
            queries_topic=f"image.queries{own}",
            results_topic=f"image.results{own}",
            dlq_topic=f"image.ingest.dlq{own}",
            group_id=f"imagelane-demo-{tag}",
        )

    @classmethod
    def for_up(cls, environment: Mapping[str, str], own_address: str) -> Self:
        """Read the same for `make up`, whose topics and group stay.

        `own_address` is that of the embedded broker.

        Raises:
            FatalError: as `from_env`.
        """
        plan = cls.from_env({**environment, "BOOTSTRAP_SERVERS": ""}, "up")
        bootstrap = environment.get("BOOTSTRAP_SERVERS") or None
        # The shell may still have the export of an earlier `make up`.
        if bootstrap == own_address:
            bootstrap = None
        # Nobody else is on our broker: there the commands find the group without being told.
        group_id = "imagelane-up" if bootstrap else "imagelane"
        return replace(plan, bootstrap=bootstrap, group_id=group_id)

    @property
    def ours(self) -> bool:
        """Whether the pictures are the repository's: then what is on them is known."""
        return self.pictures == PICTURES

    @property
    def patience_seconds(self) -> float:
        """How long to wait for the consumer, or a result, before something must be wrong."""
        return 60 if self.tiny else 3600  # the real checkpoints may be downloaded first

    def good(self) -> list[Picture]:
        """Return the pictures of the folder, sorted by name.

        Raises:
            FatalError: there are none.
        """
        try:
            found = [
                Picture(name=Path(entry.where).name, uri=entry.text.decode())
                for entry in entries(
                    [str(self.pictures)], FolderRules(recursive=False), io.BytesIO()
                )
            ]
        except (BadReference, OSError) as exc:
            raise FatalError(ExitCode.SETTINGS, f"PICTURES={self.pictures}: {exc}") from exc
        if not found:
            raise FatalError(ExitCode.SETTINGS, f"PICTURES={self.pictures}: no pictures in it")
        return found

    def wire(self, bootstrap: str, secret: str) -> dict[str, str]:
        """Return the environment that both sides share; what is empty hides what a shell has."""
        return {
            "BOOTSTRAP_SERVERS": bootstrap,
            "SECRET_API_KEY": secret,
            "SECRET_API_KEY_ID": "",
            "SECRET_API_KEYS_PREVIOUS": "",
            "SECRET_API_KEYS_PREVIOUS_FILE": "",
            "INGEST_TOPIC": self.ingest_topic,
            "QUERIES_TOPIC": self.queries_topic,
            "RESULTS_TOPIC": self.results_topic,
            "DLQ_TOPIC": self.dlq_topic,
        }

    def consumer(self) -> dict[str, str]:
        """Return what the consumer needs besides."""
        return {
            "CLIP_MODEL": self.clip,
            "BLIP_MODEL": self.blip,
            "FILE_ROOTS": str(self.pictures),
            "GROUP_ID": self.group_id,
            "GROUP_INSTANCE_ID": "",
            "BLIP_IDLE_SECONDS": str(BLIP_IDLE_SECONDS),
            "LOG_FORMAT": "json",
            "LOG_LEVEL": "info",
            # Steps of the tiny models are too small to share: a second thread waits, and on busy
            # cores it makes them ten times as slow. 0 is torch's choice.
            "TORCH_THREADS": "1" if self.tiny else "0",
            # In the file's own type, weights are pages of the file, which are seen to come and go.
            "DTYPE": "float32" if self.tiny else "auto",
            "PYTHONPATH": str(ROOT),  # it runs in a folder without a .env
        }
