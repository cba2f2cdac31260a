"""Measure both checkpoints on drawings they never saw: `python -m examples.models.evaluate`.

Used as a service would use them: JPEG bytes in, plain `from_pretrained`, the saved processors.
Held out are pictures (a seed of their own), not captions: training has seen nearly every caption.
Exits with 1 if a promised figure is not reached; `--write-card` puts the figures in the cards.
"""

import argparse
import io
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import BlipForConditionalGeneration, BlipProcessor, CLIPModel, CLIPProcessor
from transformers.utils import logging

from examples.models.dataset import draw_jpegs
from examples.models.drawings import COLOURS, SHAPES, Family, Scene, Thing, all_captions
from examples.models.train import HERE, MAX_CAPTION_TOKENS

HELD_OUT_SEED = 987_654
BATCH = 50
GROUP = 64
PROMISE = 0.95
Answer = TypeVar("Answer")
BLOCK = re.compile(r"(<!-- figures -->\n).*(<!-- end of figures -->)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A share of right answers. `promised` figures decide about the exit status."""

    name: str
    right: int
    of: int
    promised: bool = False

    @property
    def share(self) -> float:
        """Return the share, not rounded."""
        return self.right / self.of

    def __str__(self) -> str:
        promise = f" (promised: {PROMISE:.0%} at least)" if self.promised else ""
        return f"{self.name}: {self.share:.1%} of {self.of:,}{promise}"


def main() -> int:
    """Print the figures and return the exit status."""
    options = _options()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(2)
    held_out = list(draw_jpegs(HELD_OUT_SEED, 0, options.pictures))
    scenes, jpegs = [scene for scene, _ in held_out], [jpeg for _, jpeg in held_out]
    measured = {
        "tiny-clip": measure_clip(options.folder / "tiny-clip", scenes, jpegs),
        "tiny-blip": measure_blip(options.folder / "tiny-blip", scenes, jpegs),
    }
    for name, figures in measured.items():
        print(name, *figures, sep="\n  ")
        if options.write_card:
            write_card(options.folder / name / "README.md", figures)
    kept = all(f.share >= PROMISE for figures in measured.values() for f in figures if f.promised)
    print("promise kept" if kept else "PROMISE BROKEN")
    return 0 if kept else 1


def measure_blip(folder: Path, scenes: Sequence[Scene], jpegs: Sequence[bytes]) -> list[Figure]:
    """Count the captions that are right to the letter, in all and by kind of scene."""
    blip = BlipForConditionalGeneration.from_pretrained(folder).train(False)
    processor = BlipProcessor.from_pretrained(folder)

    def caption(batch: list[Image.Image]) -> list[str]:
        inputs = processor(images=batch, return_tensors="pt")
        tokens = blip.generate(**inputs, max_new_tokens=MAX_CAPTION_TOKENS)
        texts = processor.batch_decode(  # type: ignore[no-untyped-call]
            tokens, skip_special_tokens=True
        )
        return list(texts)

    captions = [text for batch in _batches(jpegs, caption) for text in batch]
    right = [text == scene.caption for text, scene in zip(captions, scenes, strict=True)]
    figures = [Figure(name="captions right", right=sum(right), of=len(right), promised=True)]
    for family in Family:
        own = [r for r, scene in zip(right, scenes, strict=True) if scene.family is family]
        figures.append(Figure(name=f"captions right, {family.value}", right=sum(own), of=len(own)))
    return figures


def measure_clip(folder: Path, scenes: Sequence[Scene], jpegs: Sequence[bytes]) -> list[Figure]:
    """Count how often text and picture find each other among 64, and two harder searches."""
    clip = CLIPModel.from_pretrained(folder).train(False)
    processor = CLIPProcessor.from_pretrained(folder)

    def embed_images(batch: list[Image.Image]) -> Tensor:
        inputs = processor(images=batch, return_tensors="pt")
        return _unit(clip.get_image_features(**inputs).pooler_output)

    @torch.inference_mode()
    def embed_texts(texts: list[str]) -> Tensor:
        inputs = processor(text=texts, padding=True, return_tensors="pt")
        return _unit(clip.get_text_features(**inputs).pooler_output)

    images = torch.cat(list(_batches(jpegs, embed_images)))
    captions = [scene.caption for scene in scenes]
    every = all_captions()
    nearest = (images @ embed_texts(every).T).argmax(1).tolist()
    among_all = sum(every[i] == c for i, c in zip(nearest, captions, strict=True))
    return [
        *_among_64(images, embed_texts(captions), captions),
        Figure(
            name=f"picture finds its text among {len(every):,}", right=among_all, of=len(scenes)
        ),
        _short_queries(images, scenes, embed_texts),
    ]


def _among_64(images: Tensor, texts: Tensor, captions: Sequence[str]) -> list[Figure]:
    found_picture = found_text = total = 0
    for group in groups_of_different(captions, GROUP):
        cosines, own = images[group] @ texts[group].T, torch.arange(GROUP)
        found_text += int((cosines.argmax(1) == own).sum())
        found_picture += int((cosines.argmax(0) == own).sum())
        total += GROUP
    return [
        Figure(
            name="text finds its picture among 64", right=found_picture, of=total, promised=True
        ),
        Figure(name="picture finds its text among 64", right=found_text, of=total),
    ]


def groups_of_different(captions: Sequence[str], size: int) -> list[list[int]]:
    """Group row numbers so that no caption is twice in a group, where either would be right."""
    groups: list[list[int]] = [[]]
    for row, caption in enumerate(captions):
        if len(groups[-1]) == size:
            groups.append([])
        if all(captions[other] != caption for other in groups[-1]):
            groups[-1].append(row)
    return [group for group in groups if len(group) == size]


def _short_queries(
    images: Tensor, scenes: Sequence[Scene], embed_texts: Callable[[list[str]], Tensor]
) -> Figure:
    """Ask for single shapes by colour and shape alone, such as `a red circle`."""
    things = [Thing(colour=c, shape=s) for c in COLOURS for s in SHAPES]
    rows = [row for row, scene in enumerate(scenes) if scene.family is Family.SINGLE]
    nearest = (images[rows] @ embed_texts([t.one for t in things]).T).argmax(1).tolist()
    right = sum(things[i] == scenes[row].things[0] for i, row in zip(nearest, rows, strict=True))
    return Figure(name="single shape finds its two words of 40", right=right, of=len(rows))


def write_card(card: Path, figures: Sequence[Figure]) -> None:
    """Replace the block of figures in a model card."""
    lines = "".join(f"- {figure}\n" for figure in figures)
    text = card.read_text(encoding="utf-8")
    card.write_text(BLOCK.sub(rf"\g<1>{lines}\g<2>", text), encoding="utf-8")


@torch.inference_mode()
def _batches(jpegs: Iterable[bytes], run: Callable[[list[Image.Image]], Answer]) -> list[Answer]:
    remaining = iter(jpegs)
    results = []
    while batch := [
        Image.open(io.BytesIO(jpeg)).convert("RGB") for jpeg in itertools.islice(remaining, BATCH)
    ]:
        results.append(run(batch))
    return results


def _unit(embeddings: Tensor) -> Tensor:
    return functional.normalize(embeddings, dim=-1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=HERE)
    parser.add_argument("--pictures", type=int, default=2_000)
    parser.add_argument("--write-card", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
