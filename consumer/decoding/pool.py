"""Where decoding runs: threads off the event loop, each image with a limit of wall time.

Pillow's codecs release the interpreter lock, so threads do scale. A thread cannot be killed: one
that overruns fails its record, and keeps its place until it ends, which the limits on pixels make
sure of. A crash of native code ends the process. Worker processes, which would heal both, fit
behind this class: what crosses its door can be pickled.
"""

import asyncio
import os
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from consumer.decoding.image import DecodeLimits, decode
from consumer.pixels import DecodedImage, Resize
from consumer.verdicts import Failed
from schemas import Code, Task


class Decoder:
    """Decodes up to `workers` images at a time, by default one a core."""

    def __init__(
        self,
        limits: DecodeLimits,
        *,
        timeout_seconds: float,
        workers: int | None = None,
    ) -> None:
        self._limits = limits
        self._timeout_seconds = timeout_seconds
        workers = workers or os.cpu_count() or 1
        self._free = asyncio.Semaphore(workers)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")

    async def __aenter__(self) -> Self:
        # A stranger's metadata must not write to our standard error; the limits decide, not these.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def decode(self, data: bytes, targets: Mapping[Task, Resize]) -> DecodedImage:
        """Decode `data` for `targets`, as `consumer.decoding.image.decode` does.

        The time limit counts from the moment a thread is free.

        Raises:
            Failed: the image's own fault, or `decoder_crashed`: over the time limit, or an error
                that the decoder does not know.
        """
        await self._free.acquire()
        work = asyncio.get_running_loop().run_in_executor(
            self._threads, decode, data, targets, self._limits
        )
        work.add_done_callback(self._finished)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await asyncio.shield(work)
        except TimeoutError as exc:
            raise Failed(
                Code.DECODER_CRASHED, f"not decoded within {self._timeout_seconds:g} seconds"
            ) from exc
        except Failed:
            raise
        except Exception as exc:  # a bug that a hostile image finds must cost that image alone
            raise Failed(
                Code.DECODER_CRASHED, f"the decoder failed with {type(exc).__name__}"
            ) from exc

    def _finished(self, work: asyncio.Future[DecodedImage]) -> None:
        self._free.release()
        if not work.cancelled():
            work.exception()  # seen, even where nobody waits for it any longer
