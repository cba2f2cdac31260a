"""Draw the example pictures again: `python -m examples.pictures.draw`.

Each picture is seeded by its own name, so adding one changes no other. The same libraries write the
same bytes; another release of an encoder may write other bytes for the same picture.
"""

import argparse
import json
import random
from pathlib import Path

from examples.models.drawings import render
from examples.pictures.catalogue import Example, catalogue
from examples.pictures.hostile_files import write_hostile

HERE = Path(__file__).parent
MANIFEST = "captions.json"


def main() -> None:
    """Draw into this folder, or into another one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=HERE)
    draw_all(parser.parse_args().output)


def draw_all(folder: Path) -> None:
    """Write the pictures, the manifest of their true captions, and the hostile files."""
    hostile = folder / "hostile"
    hostile.mkdir(parents=True, exist_ok=True)
    captions = {example.name: draw_one(example, folder) for example in catalogue()}
    manifest = json.dumps(captions, indent=2, sort_keys=True)
    (folder / MANIFEST).write_text(f"{manifest}\n", encoding="utf-8")
    write_hostile(hostile)


def draw_one(example: Example, folder: Path) -> str | None:
    """Write one picture and return its true caption, or None where its colours are lost."""
    rng = random.Random(example.name)
    scene = example.scene(rng)
    image = render(
        scene,
        rng,
        width=example.width,
        height=example.height,
        noise_sigma=example.noise_sigma,
    )
    example.write(image, folder / example.name)
    return scene.caption if example.shows_colours else None


if __name__ == "__main__":
    main()
