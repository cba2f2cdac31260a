"""Our pixels beside those of libvips and of Chromium, for every file of a folder.

`python -m benchmarks.compare_pixels [FOLDER]` decodes each file with all formats, reduces the
picture to 64 x 64, and prints the mean difference of 255, the largest first, and who shows a file
that we refuse. Needs `pip install pyvips-binary pyvips` for the one and a Chromium for the other;
what is not there is left out. Files are trusted here: nothing is caged.
"""

import argparse
import base64
import contextlib
import io
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from consumer.errors import Failed
from consumer.images.decoding.image import decode, prepare
from consumer.images.decoding.limits import DecodeLimits, Format
from consumer.pixels import Pixels, Resize
from schemas import Task

SIDE: Final = 64
_TO: Final = Resize(height=SIDE, width=SIDE, resample=Image.Resampling.BOX, crop=False)
_LIMITS: Final = DecodeLimits(formats=tuple(Format))
# Draws an image on white, as it is shown, and gives its pixels back as a PNG.
_SCRIPT: Final = """async address => {
  const image = new Image();
  image.src = address;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0);
  return canvas.toDataURL("image/png").split(",")[1];
}"""

Read = Callable[[bytes], Pixels]


def ours(data: bytes) -> Pixels:
    """Return the picture as the consumer sees it, at 64 x 64."""
    return decode(data, {Task.EMBED: _TO}, _LIMITS).pixels[Task.EMBED]


@contextlib.contextmanager
def readers() -> Iterator[dict[str, Read]]:
    """Open the other programs that are installed here."""
    found: dict[str, Read] = {}
    with contextlib.ExitStack() as opened:
        with contextlib.suppress(ImportError, OSError):
            found["libvips"] = _libvips()
        with contextlib.suppress(Exception):  # no package, or no browser: playwright has many
            found["Chromium"] = opened.enter_context(_chromium())
        yield found


def _libvips() -> Read:
    import pyvips

    def read(data: bytes) -> Pixels:
        image = pyvips.Image.new_from_buffer(data, "").autorot()
        if image.interpretation in ("grey16", "rgb16"):
            image = (image >> 8).cast("uchar").copy(interpretation="srgb")
        image = image.colourspace("srgb")
        if image.hasalpha():
            image = image.flatten(background=[255, 255, 255])
        return _reduced(Image.fromarray(image.cast("uchar")[:3].numpy()))

    return read


@contextlib.contextmanager
def _chromium() -> Iterator[Read]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Profiles are not applied by us either.
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),  # none: playwright's own
            args=["--force-color-profile=srgb", "--no-sandbox"],
        )
        page = browser.new_page()

        def read(data: bytes) -> Pixels:
            address = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
            shown = base64.b64decode(page.evaluate(_SCRIPT, address))
            return _reduced(Image.open(io.BytesIO(shown)))

        yield read
        browser.close()


def _reduced(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX))


def _pixels(read: Read, data: bytes) -> Pixels | str:
    try:
        return read(data)
    except Failed as failed:
        return f"{failed.code}: {failed.message}"
    except Exception as exc:  # noqa: BLE001 - each program has errors of its own
        return str(exc).strip().partition("\n")[0][:80]


def main() -> int:
    """Compare all files below a folder; return 0."""
    parser = argparse.ArgumentParser(description="our pixels beside those of others")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("tests/images"))
    parser.add_argument("--worst", type=int, default=20, help="lines of each list")
    options = parser.parse_args()
    prepare(_LIMITS)
    files = [path for path in sorted(options.folder.rglob("*")) if path.is_file()]
    differences: dict[str, list[tuple[float, str]]] = {}
    refused: list[str] = []
    with readers() as others:
        for path in files:
            data = path.read_bytes()
            mine = _pixels(ours, data)
            for name, read in others.items():
                theirs = _pixels(read, data)
                if isinstance(mine, str):
                    if not isinstance(theirs, str):
                        refused.append(f"{path}: {name} shows it; {mine}")
                elif not isinstance(theirs, str):
                    mean = float(np.abs(mine.astype(int) - theirs).mean())
                    differences.setdefault(name, []).append((mean, str(path)))
    for name, found in differences.items():
        found.sort(reverse=True)
        means = [mean for mean, _ in found]
        print(f"{name}: {len(found)} files, mean difference {np.mean(means):.2f} of 255")
        print(*(f"{mean:7.2f}  {path}" for mean, path in found[: options.worst]), sep="\n")
    print(f"{len(refused)} of {len(files)} files refused that another program shows")
    print(*refused[: options.worst], sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
