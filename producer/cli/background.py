"""Iteration over a blocking source, such as standard input, beside an event loop."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from typing import Final, TypeVar

T = TypeVar("T")
_AHEAD: Final = 256


async def in_thread(items: Iterable[T]) -> AsyncGenerator[T, None]:
    """Yield items that a thread takes, at most 256 ahead; raise the thread's error.

    The thread is a daemon and no executor's: nothing interrupts a read of a terminal, and neither
    Ctrl-C nor the end of the program may wait for it.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[tuple[T] | BaseException | None] = asyncio.Queue()
    room = threading.Semaphore(_AHEAD)

    def hand_over(event: tuple[T] | BaseException | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: the program ends
            loop.call_soon_threadsafe(arrived.put_nowait, event)

    def pump() -> None:
        try:
            for item in items:
                room.acquire()
                hand_over((item,))
        except BaseException as exc:  # noqa: BLE001  # raised in the task that iterates
            hand_over(exc)
        else:
            hand_over(None)

    threading.Thread(target=pump, name="references", daemon=True).start()
    while (event := await arrived.get()) is not None:
        if isinstance(event, BaseException):
            raise event
        room.release()
        yield event[0]
