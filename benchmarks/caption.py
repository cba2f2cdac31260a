"""Captions a second, beside transformers' own `generate` as its documentation calls it.

`python -m benchmarks.caption`: BLIP of the real size with random weights, on the CPU, batches of 1,
4 and 8. Both sides get pictures of the model's size and give text; every caption has as many tokens
as it may, since random weights never end one. The reference computes in float32 with eager
attention, which is what `from_pretrained` gives. The sides take turns.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import BlipForConditionalGeneration
from transformers.models.blip.processing_blip import BlipProcessor

from benchmarks.checkpoints import BLIP_BASE, SMALL, noise, save_random_blip
from consumer.inference.models.captioner import GreedyCaptioner
from consumer.inference.models.checkpoint import inspect
from consumer.inference.models.device import choose_device
from consumer.pixels import Pixels

Caption = Callable[[Sequence[Pixels]], list[str]]
GOALS = {("float32", 1): 1.0, ("float32", 8): 1.5, ("bfloat16", 8): 3.0}
BATCHES = (1, 4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Both sides' medians at one batch; `ratios` of the rates, a value a round, ascending."""

    dtype: str
    batch: int
    captions_per_second: float
    generate_per_second: float
    ratios: list[float]

    @property
    def ratio(self) -> float:
        """The median."""
        return statistics.median(self.ratios)


def main() -> int:
    """Measure, print, and return the exit code: 1 if a goal is not reached."""
    parser = argparse.ArgumentParser(description="captions against transformers' generate")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=10, help="tokens of each caption")
    parser.add_argument("--small", action="store_true", help="a small model: to try the benchmark")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        save_random_blip(Path(folder), SMALL if arguments.small else BLIP_BASE)
        rows = measure(Path(folder), arguments.rounds, arguments.tokens)
    if arguments.json:
        arguments.json.write_text(
            json.dumps([asdict(row) | {"ratio": row.ratio} for row in rows], indent=2) + "\n"
        )
    return 0 if report(rows) else 1


def measure(folder: Path, rounds: int, tokens: int, device: str = "cpu") -> list[Row]:
    """Return a row of figures for each dtype and batch."""
    dtypes = ["float32"]
    if choose_device(device).dtype is torch.bfloat16:
        dtypes.append("bfloat16")
    captioners = {dtype: ours(folder, dtype, tokens, device) for dtype in dtypes}
    sides = {"generate": reference(folder, tokens, device)}
    sides |= {dtype: captioner.caption for dtype, captioner in captioners.items()}
    images = noise(max(BATCHES), captioners["float32"].resize)
    rows = []
    for batch in BATCHES:
        seconds = in_turns(sides, images[:batch], rounds)
        theirs = seconds["generate"]
        rows += [
            Row(
                dtype=dtype,
                batch=batch,
                captions_per_second=batch / statistics.median(seconds[dtype]),
                generate_per_second=batch / statistics.median(theirs),
                ratios=sorted(a / b for a, b in zip(theirs, seconds[dtype], strict=True)),
            )
            for dtype in dtypes
        ]
    return rows


def in_turns(
    sides: dict[str, Caption], images: Sequence[Pixels], rounds: int
) -> dict[str, list[float]]:
    """Return each side's seconds, a value a round; one round more warms all up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, caption in sides.items():
            started = time.perf_counter()
            captions = caption(images)
            if len(captions) != len(images):
                raise RuntimeError(f"{name} gave {len(captions)} captions of {len(images)}")
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ours(folder: Path, dtype: str, tokens: int, device: str = "cpu") -> GreedyCaptioner:
    """Return the consumer's captioner, on its device."""
    checkpoint, chosen = inspect(str(folder), "main", "blip"), choose_device(device, dtype)
    captioner = GreedyCaptioner(checkpoint, chosen, max_new_tokens=tokens)
    captioner.load()
    captioner.to_device()
    return captioner


def reference(folder: Path, tokens: int, device: str) -> Caption:
    """Return what transformers' documentation shows, with the pictures resized already."""
    processor = BlipProcessor.from_pretrained(folder)
    model = BlipForConditionalGeneration.from_pretrained(folder)
    torch.nn.Module.to(model, device)

    def caption(images: Sequence[Pixels]) -> list[str]:
        inputs = processor(images=list(images), return_tensors="pt").to(device)
        outputs = model.generate(**inputs, max_new_tokens=tokens)
        texts: list[str] = processor.batch_decode(outputs, skip_special_tokens=True)
        return texts

    return caption


def report(rows: Sequence[Row]) -> bool:
    """Print the table; return whether all goals are reached."""
    reached = True
    print("| dtype | batch | captions/s | generate, captions/s | ratio | goal |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        goal = GOALS.get((row.dtype, row.batch))
        reached &= goal is None or row.ratio >= goal
        print(
            f"| {row.dtype} | {row.batch} | {row.captions_per_second:.2f} | "
            f"{row.generate_per_second:.2f} | {row.ratio:.2f} "
            f"({row.ratios[0]:.2f} to {row.ratios[-1]:.2f}) | {goal or ''} |"
        )
    return reached


if __name__ == "__main__":
    sys.exit(main())
