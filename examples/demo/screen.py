"""What the demo says: sections and tables, in colour on a terminal, plain text elsewhere."""

import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from examples.demo.expectations import Neighbour, Sent
from examples.demo.outputs import Outputs, Place
from examples.demo.plan import Plan
from examples.processes import Event
from imagelane.terminal import printable
from schemas import Result

_SILENT_SECONDS: Final = 10  # after which a line says that it goes on
_PLAIN_WIDTH: Final = 180  # a file has no width, and no line should be broken for one
_BLIP: Final = {
    "blip loading": "BLIP is loading: somebody asked for a caption",
    "blip loaded": "BLIP is loaded",
    "blip on device": "BLIP is on the device, captions begin",
    "blip offloaded": "BLIP has left",
    "blip load failed": "BLIP could not be loaded",
}
_LEFT: Final = {
    "disk": "; memory holds none of it",
    "host memory": "; its weights wait in host memory",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The consumer's memory at one moment; None where the system does not tell."""

    when: str
    resident_mib: float | None
    blip_mapped: bool | None


class Screen:
    """Writes to standard output; `start` is the monotonic second at which the demo began."""

    def __init__(self, start: float) -> None:
        width = None if sys.stdout.isatty() else _PLAIN_WIDTH
        self._console = Console(width=width, markup=False, highlight=False, emoji=False)
        self._start = start
        self._last_step = start
        self._yes = "✓" if self._console.encoding.lower().startswith("utf") else "yes"

    def section(self, title: str) -> None:
        """Begin a section."""
        self._console.print()
        self._console.print(title, style="bold cyan")

    def say(self, text: str, style: str | None = None) -> None:
        """Print a paragraph."""
        self._console.print(printable(text), style=style)

    def step(self, text: str) -> None:
        """Print what just happened, with the seconds since the start."""
        self._last_step = time.monotonic()
        self._console.print(f"  {self._last_step - self._start:5.1f} s  {printable(text)}")

    def progress(self, done: int, total: int) -> None:
        """Print how far it is, if nothing was printed for a while."""
        if done < total and time.monotonic() - self._last_step >= _SILENT_SECONDS:
            self.step(f"{done} of {total} outcomes are here")

    def blip(self, event: Event) -> None:
        """Print what BLIP did, if the event is about it."""
        text = _BLIP.get(event.name)
        if text is None:
            return
        took = "" if event.seconds is None else f" (in {event.seconds:.1f} s)"
        idle = event.idle_seconds
        waited = "" if idle is None else f" after {idle:.1f} s without a caption"
        to = _LEFT.get(event.to or "", "")
        reason = f": {event.reason}" if event.reason else ""
        self.step(text + took + waited + to + reason)

    def models(self, plan: Plan) -> None:
        """Say which checkpoints these are, and which they are not."""
        if plan.tiny:
            self.say(
                "The checkpoints are TINY ones, trained on drawings of coloured shapes for this "
                "demo. They are not the real CLIP and BLIP: with a photograph, or in speed, they "
                "tell nothing. `make demo MODELS=hub` takes the real ones.",
                "yellow",
            )
        else:
            self.say(f"The checkpoints are {plan.clip} and {plan.blip}, from the hub.")

    def good(
        self, results: Mapping[str, Result], truths: Mapping[str, str] | None, *, judge: bool
    ) -> None:
        """Print a row for each picture; what was drawn where that is known, or whether it fits."""
        known = "true" if judge else "what was drawn"
        table = _table("picture", "caption by the model", *(() if truths is None else (known,)))
        table.add_column("ms", justify="right")
        table.add_column("format and size")
        for name, result in results.items():
            image, caption = result.image, result.caption.text if result.caption else ""
            assert image is not None, "an ok result has an image"
            cells = [name, caption]
            if truths is not None:
                drawn = truths.get(name)
                cells.append(self._judged(drawn, caption) if judge else drawn or "-")
            total = f"{result.timing_ms.total:.0f}" if result.timing_ms.total else ""
            size = f"{image.format} {image.width} x {image.height}"
            _row(table, *cells, total, size)
        self._console.print(table)

    def _judged(self, truth: str | None, caption: str) -> str:
        if truth is None:
            return "-"
        return self._yes if truth == caption else f"no: {truth}"

    def neighbours(self, found: Mapping[str, Sequence[Neighbour]]) -> None:
        """Print the pictures nearest to each."""
        table = _table("picture", "cosine", "neighbour")
        for name, neighbours in found.items():
            for first, one in zip((name, "", ""), neighbours, strict=False):
                _row(table, first, f"{one.cosine:.3f}", one.name)
        self._console.print(table)

    def bad(self, sent: Iterable[Sent], seen: Mapping[Place, Outputs]) -> None:
        """Print what was sent that should not be, and what came of it."""
        table = _table("what was sent", "what came", "code", "message")
        for one in sent:
            what = seen.get(one.place, Outputs())
            dead_letter = what.dead_letters[0] if what.dead_letters else None
            _row(
                table,
                one.what,
                _came(what),
                dead_letter.code if dead_letter else "-",
                dead_letter.message if dead_letter else "its id was seen before",
            )
        self._console.print(table)

    def memory(self, moments: Iterable[Moment]) -> None:
        """Print the consumer's memory at some moments."""
        table = _table("the consumer's memory")
        table.add_column("MiB", justify="right")
        table.add_column("BLIP's weight file is in it")
        for moment in moments:
            mib = "?" if moment.resident_mib is None else f"{moment.resident_mib:.0f}"
            mapped = {None: "?", True: "yes", False: "no"}[moment.blip_mapped]
            _row(table, moment.when, mib, mapped)
        self._console.print(table)

    def answered(self, milliseconds: Sequence[float]) -> None:
        """Say how the requests for embeddings alone fared meanwhile."""
        if milliseconds:
            self.step(
                f"{len(milliseconds)} requests for an embedding alone were answered meanwhile, one "
                f"after the other, in {statistics.median(milliseconds):.0f} ms each (median; "
                f"the longest {max(milliseconds):.0f} ms)"
            )

    def verdict(self, faults: Sequence[str]) -> None:
        """Print what did not hold, or that all did, and how long it took."""
        self._console.print()
        for fault in faults:
            self.say(f"NOT AS EXPECTED: {fault}", "bold red")
        seconds = time.monotonic() - self._start
        if faults:
            self.say(f"Not all is as expected, see above ({seconds:.1f} s).", "bold red")
        else:
            self.say(f"All as expected. The demo took {seconds:.1f} s.", "bold green")


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _row(table: Table, *cells: str) -> None:
    """Add cells as plain text: names and messages are not ours, and no markup."""
    table.add_row(*(Text(printable(cell)) for cell in cells))


def _came(seen: Outputs) -> str:
    if seen.results and seen.dead_letters:
        return "error result + dead letter"
    if seen.dead_letters:
        return "dead letter only"
    return "a result" if seen.results else "nothing"
