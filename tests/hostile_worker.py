"""Lets an image run code of a test inside the real decoding process, once its cage is closed.

An image that begins with `MARK` is Python; it runs in place of the decoder, and what it puts into
`said` comes back as the message of a verdict. So a test can try what an attacker would who has
taken the decoder over.
"""

import textwrap
from pathlib import Path

import pytest

from consumer.errors import Failed
from consumer.images.decoding.pool import Decoder
from consumer.pixels import Resize
from schemas import Task
from tests.fakes import decoded

MARK = b"#!hostile\n"
_TARGETS = {Task.EMBED: Resize(height=4, width=4, resample=3, crop=False)}
# Runs in each process that starts with this folder on its path; what it imports is there before
# the cage closes, as it would be for machine code.
SITE = """
import ctypes, errno, mmap, os, resource, signal, socket, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result

try:
    from consumer.errors import Failed
    from consumer.images.decoding import image
    from schemas import Code
except ImportError:
    pass
else:
    decode = image.decode

    def hostile(data, targets, limits):
        if not data.startswith(b"#!hostile\\n"):
            return decode(data, targets, limits)
        names = dict(globals(), said=[], data=data)
        exec(data, names)
        raise Failed(Code.CORRUPT_IMAGE, " ".join(map(str, names["said"]))[:500])

    image.decode = hostile
"""


def allow_code(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let images that begin with `MARK` run in decoding processes that start from now on."""
    (folder / "sitecustomize.py").write_text(SITE)
    monkeypatch.syspath_prepend(folder)


async def run_inside(decoder: Decoder, code: str) -> str:
    """Run `code` in a decoding process; return the words that it appended to `said`."""
    with pytest.raises(Failed) as caught:
        await decoded(decoder, MARK + textwrap.dedent(code).encode(), _TARGETS)
    return caught.value.message
