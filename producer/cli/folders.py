"""The pictures of a folder, and a count of the other files by reason."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# The consumer's default of DECODE_FORMATS.
DEFAULT_FORMATS: Final = "JPEG,PNG,WEBP,GIF,BMP"
_SUFFIXES: Final = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "HEIC": (".heic", ".heif", ".hif"),
    "RAW": (".dng", ".nef", ".cr2", ".arw"),
}
FORMAT_OF: Final = {suffix: name for name, suffixes in _SUFFIXES.items() for suffix in suffixes}
_NEVER: Final = frozenset({".cr3", ".orf", ".raf", ".rw2", ".pef", ".srw", ".psd", ".svg", ".jxl"})
_EXAMPLE_CHARS: Final = 40


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Files that are left out of folders: counts by reason, each with the name of one file."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, path: Path) -> None:
        """Count one file."""
        self.counts[reason] += 1
        self.examples.setdefault(reason, path.name)

    def lines(self) -> list[str]:
        """Return a line for each reason, the most frequent first."""
        return [
            f"left out {count}: {reason} ({self.examples[reason][:_EXAMPLE_CHARS]})"
            for reason, count in self.counts.most_common()
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderRules:
    """Which files of a folder are published; `formats` are the consumer's."""

    recursive: bool
    formats: frozenset[str] = frozenset(DEFAULT_FORMATS.split(","))

    def pictures(self, folder: Path, left_out: LeftOut) -> Iterator[Path]:
        """Yield the pictures, sorted by name; count the rest.

        Raises:
            OSError: a folder cannot be read.
        """
        for child in sorted(folder.iterdir()):
            if reason := self._reason_against(child):
                left_out.add(reason, child)
            elif child.is_dir():
                yield from self.pictures(child, left_out)
            else:
                yield child

    def _reason_against(self, path: Path) -> str | None:
        if path.name == "@eaDir":
            return "thumbnails of a NAS"
        if path.name.startswith("."):
            return "hidden"
        if path.is_dir():
            if not self.recursive:
                return "folders in it; -r takes them"
            return "links to folders" if path.is_symlink() else None  # one may lead back up
        if not path.exists():
            return "links that lead nowhere"
        if not path.is_file():
            return "no files"
        return self._reason_against_suffix(path.suffix.lower())

    def _reason_against_suffix(self, suffix: str) -> str | None:
        name = FORMAT_OF.get(suffix)
        if name in self.formats:
            return None
        if name:
            return f"{suffix}: {name} is not in DECODE_FORMATS"
        kind = "a format that is not decoded" if suffix in _NEVER else "no suffix of a picture"
        return f"{suffix or 'no suffix'}: {kind}" if suffix else "no suffix"


def formats_of(setting: str) -> frozenset[str]:
    """Return the formats of a value of DECODE_FORMATS; an empty value means the default."""
    return frozenset(name.strip().upper() for name in (setting or DEFAULT_FORMATS).split(","))
