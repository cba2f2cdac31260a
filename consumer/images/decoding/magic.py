"""Names the format of a file by its first bytes: only that format's parser sees the rest. Pure."""

import struct
from typing import Final

_PREFIXES: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"8BPS", "PSD"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"<svg", "SVG"),
    (b"SIMPLE  =", "FITS"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"FUJIFILMCCD-RAW", "RAF"),
    (b"IIU\x00", "RW2"),
    (b"IIRO", "ORF"),
    (b"IIRS", "ORF"),
    (b"MMOR", "ORF"),
    (b"FOVb", "X3F"),
    (b"%PDF-", "PDF"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"gimp xcf", "XCF"),
    (b"icns", "ICNS"),
)
_BRANDS: Final = {
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"hevc": "HEIC",
    b"heim": "HEIC",
    b"heis": "HEIC",
    b"hevm": "HEIC",
    b"hevs": "HEIC",
    b"mif1": "HEIF",
    b"mif2": "HEIF",
    b"mif3": "HEIF",
    b"msf1": "HEIF",
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"crx ": "CR3",
    b"jxl ": "JPEG XL",
    b"jp2 ": "JPEG 2000",
    b"jpx ": "JPEG 2000",
    b"qt  ": "QuickTime",
    b"isom": "MP4",
    b"mp41": "MP4",
    b"mp42": "MP4",
    b"M4V ": "MP4",
}
# A QuickTime file without a type begins with one of these boxes.
_MOVIE_BOXES: Final = frozenset({b"moov", b"mdat", b"wide", b"pnot"})
_XML_BYTES: Final = 1024  # a prolog, comments and a document type, before the root
_MAX_BRANDS_BYTES: Final = 256
# Cameras' raw files are TIFFs whose first directory tells: tags of TIFF 6.0, TIFF/EP and DNG.
_MAX_TIFF_ENTRIES: Final = 256
_NEW_SUBFILE_TYPE: Final = 0x00FE
_MAKE: Final = 0x010F
_SUB_IFDS: Final = 0x014A
_DNG_VERSION: Final = 0xC612
_RAW_OF_MAKE: Final = {b"NIKON": "NEF", b"SONY": "ARW"}
# "BM" alone begins many a text, so the size of the header that follows has to be one there is.
_BMP_HEADER_BYTES: Final = frozenset({12, 40, 52, 56, 64, 108, 124})


def sniff(data: bytes) -> str | None:
    """Return the name of the image format that `data` begins as; None if it is no image."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADER_BYTES:
        return "BMP"
    if data[4:8] == b"ftyp":
        return _brand(data)
    if data[4:8] in _MOVIE_BOXES:
        return "QuickTime"
    if data.lstrip(b"\xef\xbb\xbf \t\r\n")[:5] in (b"<?xml", b"<!DOC", b"<svg ", b"<svg>"):
        return "SVG" if b"<svg" in data[:_XML_BYTES] else None
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        return "PNM"
    name = next((name for prefix, name in _PREFIXES if data.startswith(prefix)), None)
    return _raw_kind(data) or name if name == "TIFF" else name


def _brand(data: bytes) -> str:
    """Return what the brands of an ISO file say: the major one, or what makes it more precise.

    A general brand (`mif1`) and one that is not known are made more precise by the compatible ones;
    where none is known, it is called a film.
    """
    length = min(int.from_bytes(data[:4], "big"), _MAX_BRANDS_BYTES)
    found = _BRANDS.get(data[8:12])
    if found not in (None, "HEIF"):
        return found
    others = [_BRANDS.get(data[at : at + 4]) for at in range(16, length, 4)]
    precise = next((name for name in others if name in ("HEIC", "AVIF")), None)
    return precise or found or next((name for name in others if name), "MP4")


def _raw_kind(data: bytes) -> str | None:
    """Return which raw file a TIFF is; None if it is just a TIFF.

    A NEF or an ARW is a preview in the first directory, with the sensor's picture in another.
    """
    if data[8:10] == b"CR":
        return "CR2"
    order = "<" if data[:2] == b"II" else ">"
    try:
        (directory,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, directory)
        entries = {
            tag: value
            for tag, _, _, value in (
                struct.unpack_from(order + "HHI4s", data, directory + 2 + 12 * index)
                for index in range(min(count, _MAX_TIFF_ENTRIES))
            )
        }
    except struct.error:
        return None
    if _DNG_VERSION in entries:
        return "DNG"
    if not {_MAKE, _SUB_IFDS, _NEW_SUBFILE_TYPE} <= entries.keys():
        return None
    (subfile_type,) = struct.unpack(order + "I", entries[_NEW_SUBFILE_TYPE])
    if not subfile_type & 1:  # not a reduced picture
        return None
    (at,) = struct.unpack(order + "I", entries[_MAKE])
    make = data[at : at + 5]
    return next((kind for name, kind in _RAW_OF_MAKE.items() if make.startswith(name)), None)
