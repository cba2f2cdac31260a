"""The consumer under test, standing still: `python -m tests.faults.hanging`.

HANG=models     the checkpoints are loaded for ever
HANG=history    a partition's history never comes
HANG=gpu        the GPU thread never returns from its first step after the warm-up
HANG=blip       BLIP is loaded for ever
HANG=loop       the event loop never turns again, from the tenth record on
HANG=native     likewise, in native code that lets no other thread run either
ASK=flood       SIGTERM at the tenth record, while the pipe that wakes the event loop is full
ASK=commit      SIGTERM when the third transaction is being ended
"""

import asyncio
import itertools
import os
import re
import signal
import sys
import time
from typing import Any, NoReturn

import structlog
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.transaction import EndTxnRequest

from consumer.broker import group
from consumer.inference.engine import Engine
from consumer.runtime.stop import StopRequest
from tests.faults import subject

FOREVER_SECONDS = 3600
log = structlog.get_logger()


def arm() -> None:
    """Put in what the environment asks for."""
    match os.environ.get("HANG"):
        case "models":
            sys.modules["consumer.inference.models.load"].open_models = _load_for_ever  # type: ignore[attr-defined]
        case "history":
            group.read_back = _history_that_never_comes  # type: ignore[attr-defined,assignment]
        case "gpu":
            steps = itertools.count()
            embed = subject.StubModel.embed

            def embed_thrice(self: subject.StubModel, images: Any) -> Any:
                # The warm-up, and the picture and the text that are tried before the start.
                return embed(self, images) if next(steps) < 3 else _hang("gpu step hangs")

            subject.StubModel.embed = embed_thrice  # type: ignore[method-assign]
        case "blip":
            loads = itertools.count()

            def load_twice(self: subject.StubModel) -> None:
                if next(loads) >= 2:  # what is tried before the start is captioned and embedded
                    _hang("blip hangs")

            subject.StubModel.load = load_twice  # type: ignore[method-assign]
        case "loop":
            _at_record(10, lambda: _hang("loop hangs"))
        case "native":
            # In C, with the interpreter's lock held: it tries some 2**60 ways.
            _at_record(10, lambda: re.match(r"(a+)+b", "a" * 60))
    match os.environ.get("ASK"):
        case "flood":
            _at_record(10, _ask_in_flood)
        case "commit":
            _ask_at_commit(3)


def _hang(event: str) -> None:
    log.info(event)
    time.sleep(FOREVER_SECONDS)


def _load_for_ever(_settings: object) -> None:
    _hang("models hang")


async def _history_that_never_comes(*_: object) -> NoReturn:
    log.info("history hangs")
    await asyncio.sleep(FOREVER_SECONDS)
    raise AssertionError("it came")


def _at_record(number: int, act: Any) -> None:
    infer, calls = Engine.infer, itertools.count(1)

    async def infer_after(self: Engine, *given: Any, **options: Any) -> object:
        if next(calls) == number:
            act()
        return await infer(self, *given, **options)

    Engine.infer = infer_after  # type: ignore[method-assign,assignment]


def _ask_in_flood() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(400_000):
        loop.call_soon_threadsafe(int)
    os.kill(os.getpid(), signal.SIGTERM)


def _ask_at_commit(number: int) -> None:
    send, commits = AIOKafkaConnection.send, itertools.count(1)

    def send_and_ask(self: Any, request: object, expect_response: bool = True) -> object:
        answer = send(self, request, expect_response)
        if isinstance(request, EndTxnRequest) and next(commits) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return answer

    AIOKafkaConnection.send = send_and_ask


if __name__ == "__main__":
    stop = StopRequest()
    stop.listen()
    subject.arm()
    arm()
    from consumer.command_line import run
    from imagelane.env import read_environment

    run(read_environment(), stop)
