"""Results as JSON lines in a file that a later run continues: no result twice, none missed.

The place file beside it says up to which offsets and byte it is written. It is written after the
lines, so a kill leaves at most lines beyond that byte: the next run cuts them off and reads their
results again.
"""

import fcntl
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, Final, Self

import orjson

from imagelane.exits import ExitCode, FatalError
from imagelane.terminal import json_line
from producer.results import LatestResults, ReadResult, ResultReader, Status
from producer.settings import ProducerSettings

_PLACE_SUFFIX: Final = ".place"
_ADDED: Final = b',"signed_at":'


class ResultLines:
    """A file of results, one a line: as received, with `signed_at` and `at` (its place) added.

    Raises:
        FatalError: it cannot be written, another run writes it, or its place file is another's.
    """

    def __init__(self, path: Path, topic: str) -> None:
        self._path, self._topic = path, topic
        self._place = path.with_name(path.name + _PLACE_SUFFIX)
        self._file: BinaryIO
        self.positions: dict[int, int] = {}
        self.latest = LatestResults()

    def __enter__(self) -> Self:
        try:
            self._file = self._path.open("ab+")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._continue()
        except BlockingIOError as exc:
            raise FatalError(ExitCode.FAILED, f"{self._path}: another run writes it") from exc
        except OSError as exc:
            raise FatalError(ExitCode.FAILED, f"{self._path}: {exc.strerror or exc}") from exc
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, results: Iterable[ReadResult], positions: Mapping[int, int]) -> None:
        """Write the results, then `positions` into the place file."""
        if positions == self.positions:
            return
        self.positions = dict(positions)
        self._file.write(b"".join(map(_line, results)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._write_place()

    def _continue(self) -> None:
        if not self._place.exists():
            if self._file.seek(0, os.SEEK_END):
                raise FatalError(
                    ExitCode.FAILED, f"{self._path} is there without {self._place.name}; move it"
                )
            return
        try:
            place = orjson.loads(self._place.read_bytes())
            self.positions = {int(partition): at for partition, at in place["positions"].items()}
            topic, byte_length = str(place["topic"]), int(place["bytes"])
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise FatalError(
                ExitCode.FAILED, f"{self._place} is damaged; remove it together with {self._path}"
            ) from exc
        if topic != self._topic:
            raise FatalError(
                ExitCode.FAILED,
                f"{self._path} holds results of {topic}; take another file",
            )
        if self._file.seek(0, os.SEEK_END) < byte_length:
            raise FatalError(
                ExitCode.FAILED,
                f"{self._path} is shorter than {self._place.name} says; remove both",
            )
        self._file.truncate(byte_length)
        self._recall()

    def _recall(self) -> None:
        """Remember the latest result of each id in the file."""
        self._file.seek(0)
        for line in self._file:
            members = orjson.loads(line)
            partition, offset = members["at"]
            self.latest.take(
                members["id"],
                signed_at=members["signed_at"],
                partition=partition,
                offset=offset,
                value=line.rpartition(_ADDED)[0] + b"}",
            )
        self._file.seek(0, os.SEEK_END)

    def _write_place(self) -> None:
        members = {
            "topic": self._topic,
            "bytes": self._file.tell(),
            "positions": {str(partition): at for partition, at in self.positions.items()},
        }
        aside = self._place.with_name(self._place.name + ".new")
        with aside.open("wb") as file:
            file.write(orjson.dumps(members))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._place)


async def write_lines(
    settings: ProducerSettings,
    path: Path,
    *,
    follow: bool,
    since: float | None = None,
    statuses: Collection[Status] = ("ok", "error"),
) -> tuple[int, int]:
    """Continue the file of results; return how many came, and how many do not verify.

    Results of texts are left out: they answer searches.
    """
    count = 0
    with ResultLines(path, settings.results_topic) as lines:
        opening = ResultReader(
            settings,
            follow=follow,
            since=since,
            statuses=statuses,
            start=lines.positions,
            latest=lines.latest,
        )
        async with opening as reader:
            async for results in reader.batches():
                pictures = [one for one in results if one.is_of_image]
                lines.append(pictures, {**lines.positions, **reader.positions})
                count += len(pictures)
    return count, reader.unverifiable_count


def _line(one: ReadResult) -> bytes:
    """Return the result as received, in one line, with two more members at its end."""
    document = json_line(one.value.decode()).rstrip()
    added = b'%s%d,"at":[%d,%d]}\n' % (_ADDED, one.signed_at, one.partition, one.offset)
    return document[:-1].encode() + added
