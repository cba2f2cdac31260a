"""Pillow, set up for bytes from outside: one thread, no late import, and metadata that cannot harm.

Importing this changes how Pillow reads PNG, in this process.
"""

import importlib
from typing import Final

from PIL import AvifImagePlugin, Image, ImageFile, PngImagePlugin

from consumer.images.decoding.limits import DecodeLimits, Format

# What Pillow and numpy import when a file first asks for it, here for each format and mode that may
# be listed. `tests/decoding/test_cage.py` searches both for imports within functions.
_LATE: Final = (
    "PIL.ImageCms",  # Lab to RGB
    "PIL.ImageColor",
    "PIL.ImageFile",
    "PIL.ImageFilter",
    "PIL.ImagePalette",
    "PIL.MpoImagePlugin",
    "copy",
    "encodings.ascii",
    "encodings.latin_1",
    "encodings.utf_16",
    "encodings.utf_16_be",
    "encodings.utf_16_le",
)
_METADATA: Final = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})
_ANCILLARY: Final = 0x20  # this bit of a chunk's first letter


class _PngStream(PngImagePlugin.PngStream):
    """Reads a PNG as browsers do: what is no part of the picture does not spoil it.

    Pillow refuses the file for a text or a profile of more than 1 MiB, for texts of more than 64 in
    all, and for a wrong checksum of any chunk; here such metadata is left out, and only the
    checksums of what the picture needs are held against it.
    """

    def call(self, cid: bytes, pos: int, length: int) -> bytes:
        try:
            return super().call(cid, pos, length)
        except (ValueError, SyntaxError, IndexError):
            if cid not in _METADATA or self.fp is None:
                raise
            self.fp.seek(pos)
            return ImageFile._safe_read(self.fp, length)

    def crc(self, cid: bytes, data: bytes) -> None:
        if cid[0] & _ANCILLARY:
            self.crc_skip(cid, data)
        else:
            super().crc(cid, data)


PngImagePlugin.PngStream = _PngStream  # type: ignore[misc]  # it has no other door


def prepare(limits: DecodeLimits) -> None:
    """Make Pillow ready in a process of its own, which may open no file later.

    Raises:
        ImportError: a format is listed whose library is not installed.
    """
    Image.init()  # all parsers, or Pillow looks for more when one of them refuses a file
    for name in _LATE:
        importlib.import_module(name)
    # A second line behind the check of our own: Pillow refuses twice this number, in frames too.
    Image.MAX_IMAGE_PIXELS = limits.max_pixels
    # One thread an image: the processes are what runs side by side.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    if Format.HEIC in limits.formats:
        import pillow_heif

        pillow_heif.register_heif_opener(
            thumbnails=False, depth_images=False, aux_images=False, decode_threads=1
        )
    if Format.RAW in limits.formats:
        import consumer.images.decoding.raw  # noqa: F401 - so that it is there
