"""Develop a camera's raw file with LibRaw: the extra `formats`, imported only where it is listed.

LibRaw finds its parser by the content alone and knows a thousand cameras: `DECODE_FORMATS=RAW`
opens all of them to whatever looks like one of the four that `magic` knows.
"""

import io
import multiprocessing  # noqa: F401 - rawpy asks for it at the first file, when none can be opened
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import rawpy

from consumer.errors import Failed
from consumer.pixels import Pixels
from schemas import Code

_TURNED: Final = frozenset({5, 6})  # LibRaw's numbers for a quarter turn either way


def develop(
    data: bytes, edge: int, check_size: Callable[[int, int], None]
) -> tuple[Pixels, tuple[int, int]]:
    """Return the upright picture in sRGB, with the camera's white balance, and its full size.

    It comes at half the size where that leaves `edge` pixels on its short side: one pixel of four
    sensor cells, with nothing to interpolate, in a fraction of time and memory. `check_size` sees
    width and height before a pixel is decoded.
    """
    with _translated(), rawpy.imread(io.BytesIO(data)) as raw:
        sizes = raw.sizes
        check_size(max(sizes.raw_width, sizes.width), max(sizes.raw_height, sizes.height))
        size = sizes.width, sizes.height
        half = min(size) >= 2 * edge
        pixels = raw.postprocess(use_camera_wb=True, half_size=half, output_bps=8)
    return pixels, size[::-1] if sizes.flip in _TURNED else size


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except rawpy.LibRawUnsufficientMemoryError as exc:
        raise MemoryError from exc
    except (rawpy.LibRawFileUnsupportedError, rawpy.NotSupportedError) as exc:
        raise Failed(Code.UNSUPPORTED_FORMAT, "a raw file of a kind that LibRaw lacks") from exc
    except rawpy.LibRawError as exc:
        raise ValueError(f"LibRaw: {exc.args[0]!r}") from exc
