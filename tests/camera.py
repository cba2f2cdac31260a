"""A camera's raw file, the smallest that LibRaw opens: an uncompressed DNG, written by hand."""

import struct
from typing import Final

import numpy as np

_BYTE: Final = 1
_ASCII: Final = 2
_SHORT: Final = 3
_LONG: Final = 4
_RATIONAL: Final = 5
_SIGNED_RATIONAL: Final = 10
_FORMATS: Final = {_BYTE: "B", _ASCII: "B", _SHORT: "H", _LONG: "I", _RATIONAL: "I"}
_SIGNED: Final = {_SIGNED_RATIONAL: "i"}


def dng(colours: np.ndarray, orientation: int = 1) -> bytes:
    """Return a DNG of an RGB picture (height, width, 3), one colour a sensor cell: RGGB."""
    height, width, _ = colours.shape
    cells = np.empty((height, width), "<u2")
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        cells[row::2, column::2] = colours[row::2, column::2, channel].astype("<u2") * 257
    # sRGB's colours from XYZ (D65), so that the sensor sees as a screen shows.
    matrix = (32405, -15371, -4985, -9693, 18760, 416, 556, -2040, 10572)
    entries = [
        (254, _LONG, (0,)),  # the picture itself, not a preview
        (256, _LONG, (width,)),
        (257, _LONG, (height,)),
        (258, _SHORT, (16,)),
        (259, _SHORT, (1,)),  # uncompressed
        (262, _SHORT, (32803,)),  # colour filter array
        (271, _ASCII, tuple(b"Imagelane\0")),
        (272, _ASCII, tuple(b"Drawn\0")),
        (274, _SHORT, (orientation,)),
        (277, _SHORT, (1,)),
        (278, _LONG, (height,)),
        (33421, _SHORT, (2, 2)),
        (33422, _BYTE, (0, 1, 1, 2)),
        (50706, _BYTE, (1, 4, 0, 0)),  # DNGVersion
        (50708, _ASCII, tuple(b"Imagelane Drawn\0")),
        (50721, _SIGNED_RATIONAL, tuple(n for value in matrix for n in (value, 10_000))),
        (50728, _RATIONAL, (1, 1, 1, 1, 1, 1)),  # neutral
        (50778, _SHORT, (21,)),  # D65
    ]
    return _tiff(entries, cells.tobytes())


def _tiff(entries: list[tuple[int, int, tuple[int, ...]]], pixels: bytes) -> bytes:
    """Return a little-endian TIFF with one strip: directory, long values, pixels."""
    count = len(entries) + 2
    after = 8 + 2 + 12 * count + 4
    values, rows = b"", []
    for tag, kind, numbers in entries:
        letter = (_FORMATS | _SIGNED)[kind]
        data = struct.pack(f"<{len(numbers)}{letter}", *numbers)
        many = len(numbers) // (2 if kind in (_RATIONAL, _SIGNED_RATIONAL) else 1)
        if len(data) > 4:
            rows.append((tag, kind, many, struct.pack("<I", after + len(values))))
            values += data + b"\0" * (len(data) % 2)
        else:
            rows.append((tag, kind, many, data.ljust(4, b"\0")))
    rows += [
        (273, _LONG, 1, struct.pack("<I", after + len(values))),
        (279, _LONG, 1, struct.pack("<I", len(pixels))),
    ]
    directory = b"".join(struct.pack("<HHI4s", *row) for row in sorted(rows))
    return b"II*\0" + struct.pack("<IH", 8, count) + directory + b"\0\0\0\0" + values + pixels
