"""`python -m benchmarks.picture_kinds [FOLDER]`: one picture in many kinds of files, most TIFFs.

For `python -m benchmarks.compare_pixels FOLDER`. `pip install pyvips-binary pyvips` writes kinds
that Pillow does not; without it they are left out.
"""

import argparse
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROWS, COLUMNS = np.mgrid[0:96, 0:128]
GREY = (COLUMNS * 2).astype(np.uint8)
COLOUR = np.stack([GREY, ROWS * 2, ROWS + COLUMNS], axis=2).astype(np.uint8)
TWELVE_BITS = COLUMNS.astype(np.uint16) * 32


def of_libvips(folder: Path) -> None:
    import pyvips

    def write(name: str, pixels: np.ndarray[Any, Any], kind: str, **options: Any) -> None:
        image = pyvips.Image.new_from_array(pixels).copy(interpretation=kind)
        image.tiffsave(str(folder / f"{name}.tif"), **options)

    for compression in ("none", "lzw", "deflate", "jpeg", "packbits"):
        write(f"rgb-{compression}", COLOUR, "srgb", compression=compression)
    write("rgb-predictor", COLOUR, "srgb", compression="lzw", predictor="horizontal")
    write("rgb-tiled", COLOUR, "srgb", tile=True)
    write("rgb-pyramid", COLOUR, "srgb", tile=True, pyramid=True)
    write("rgb-bigtiff", COLOUR, "srgb", bigtiff=True)
    write("grey-8", GREY, "b-w")
    write("grey-8-miniswhite", GREY, "b-w", miniswhite=True)
    for depth in (1, 2, 4):
        write(f"grey-{depth}", GREY, "b-w", bitdepth=depth)
    write("grey-16", COLUMNS.astype(np.uint16) * 512, "grey16")
    write("grey-16-of-12-bits", TWELVE_BITS, "grey16")
    write("rgb-16", COLOUR.astype(np.uint16) * 257, "rgb16")
    write("rgb-float", COLOUR.astype(np.float32) / 255, "scrgb")
    write("grey-float", GREY.astype(np.float32), "b-w")
    alpha = np.dstack([COLOUR, 255 - GREY])
    write("rgba", alpha, "srgb")
    write("rgba-16", alpha.astype(np.uint16) * 257, "rgb16")
    write("grey-alpha", np.dstack([GREY, 255 - GREY]), "b-w")
    write("cmyk", np.dstack([255 - COLOUR, np.zeros_like(GREY)]), "cmyk")


def of_pillow(folder: Path) -> None:
    colour = Image.fromarray(COLOUR)
    colour.quantize(64).save(folder / "palette.tif")
    for mode in ("CMYK", "YCbCr", "LAB"):
        colour.convert(mode).save(folder / f"{mode.lower()}-pillow.tif")
    Image.fromarray(TWELVE_BITS).save(folder / "grey-16-of-12-bits.png")
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for kind in ("tif", "jpg", "png", "webp"):
            colour.save(folder / f"turned-{orientation}.{kind}", exif=exif)


def of_nobody(folder: Path) -> None:
    """Write what neither of the two writes: planes, and colour maps of 8 bits."""
    planes = [COLOUR[:, :, channel] for channel in range(3)]
    (folder / "planes-8.tif").write_bytes(_tiff({258: [8] * 3, 262: [2], 284: [2]}, planes))
    wide = [plane.astype("<u2") * 257 for plane in planes]
    (folder / "planes-16.tif").write_bytes(_tiff({258: [16] * 3, 262: [2], 284: [2]}, wide))
    colours = [*range(256), *range(255, -1, -1), *[128] * 256]
    for name, factor in (("8", 1), ("16", 257)):
        tags = {258: [8], 262: [3], 320: [colour * factor for colour in colours]}
        (folder / f"palette-map-of-{name}.tif").write_bytes(_tiff(tags, [GREY]))


def _tiff(tags: dict[int, list[int]], strips: list[np.ndarray[Any, Any]]) -> bytes:
    """Return an uncompressed little-endian TIFF of one strip for each of `strips`."""
    offsets = np.cumsum([8, *(strip.nbytes for strip in strips)]).tolist()
    shorts = {256: [128], 257: [96], 259: [1], 277: [len(strips)], 278: [96]} | tags
    longs = {273: offsets[:-1], 279: [strip.nbytes for strip in strips]}
    entries, behind = b"", b""
    start = offsets[-1] + 2 + 12 * len(shorts | longs) + 4
    for tag, values in sorted((shorts | longs).items()):
        code, form = (3, "H") if tag in shorts else (4, "I")
        packed = struct.pack(f"<{len(values)}{form}", *values)
        if len(packed) > 4:
            packed, behind = struct.pack("<I", start + len(behind)), behind + packed
        entries += struct.pack("<HHI", tag, code, len(values)) + packed.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<I", offsets[-1])
    count = struct.pack("<H", len(shorts | longs))
    return (
        head + b"".join(strip.tobytes() for strip in strips) + count + entries + bytes(4) + behind
    )


def main() -> int:
    """Write the files; return 0."""
    parser = argparse.ArgumentParser(description="one picture in many kinds of files")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/picture-kinds"))
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    of_pillow(folder)
    of_nobody(folder)
    try:
        of_libvips(folder)
    except ImportError:
        print("without what libvips writes: it is not installed")
    print(f"{len(list(folder.iterdir()))} files in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
