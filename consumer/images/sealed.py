"""An image's bytes in a sealed memfd of their own, passed between processes by its descriptor.

A fetching process writes the bytes once and seals them. The consumer's own process passes the
descriptor on and never maps it; one decoding process reads it. The descriptor reaches no other
memory, so one picture never sees another's bytes. A memfd is not in `/dev/shm`, which Docker bounds
at 64 MB. Its pages are freed with the last descriptor.
"""

import fcntl
import hashlib
import os
import sys
import tempfile
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

_IS_LINUX: Final = sys.platform == "linux"
_SEALS: Final = (
    fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    if _IS_LINUX
    else 0
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedImage:
    """The descriptor of a fetched image, and the facts known before decoding.

    `sha256` is 64 lower-case hex digits; `decode_seconds` is an estimate for one core, by header.
    The owner closes it, once.
    """

    descriptor: int
    byte_length: int
    sha256: str
    decode_seconds: float

    @classmethod
    def of(cls, data: bytes, decode_seconds: float = 0.0) -> Self:
        """Copy `data` and seal the copy."""
        descriptor = _create()
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
            if _IS_LINUX:
                fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            return cls(
                descriptor=descriptor,
                byte_length=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                decode_seconds=decode_seconds,
            )
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def received(cls, descriptor: int, sha256: str, decode_seconds: float) -> Self:
        """Take over a descriptor that another process sent.

        Raises:
            ValueError: it is not sealed.
        """
        if _IS_LINUX:
            try:
                seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
            except OSError as exc:
                raise ValueError("not a memfd") from exc
            if seals & _SEALS != _SEALS:  # `vm.memfd_noexec` adds one
                raise ValueError("not sealed")
        return cls(
            descriptor=descriptor,
            byte_length=os.fstat(descriptor).st_size,
            sha256=sha256,
            decode_seconds=decode_seconds,
        )

    def __enter__(self) -> Self:
        """Close it when the block ends."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; the last process to close it frees the memory."""
        os.close(self.descriptor)


def _create() -> int:
    if _IS_LINUX:
        return os.memfd_create("image", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:  # a nameless file; only Linux has seals
        return os.dup(file.fileno())
