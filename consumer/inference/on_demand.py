"""A model that comes when it is asked for and leaves when idle: its jobs, its load, its moves.

BLIP and CLIP's text tower are two of these, with the same rules and the same lines in the log.
Only the engine's `run` calls `refresh`, `step` and `leave`, so one thing happens at a time.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import structlog

from consumer.inference.errors import DeviceFailed, ModelUnavailable
from consumer.inference.gpu import GpuThread, JobQueue, MakeRoom, StepFailed
from consumer.inference.ports import OnDemand
from consumer.inference.residency import Move, Residency, ResidencyPolicy, State

_log = structlog.get_logger()
_PLACE: Final = {Move.OFFLOAD: "host memory", Move.UNLOAD: "disk"}

X = TypeVar("X")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What the models of one device share. `changed` wakes the engine."""

    gpu: GpuThread
    clock: Callable[[], float]
    changed: asyncio.Event


class OnDemandModel(Generic[X, T]):
    """One model on demand; the log has its `name` in lower case."""

    def __init__(
        self,
        name: str,
        model: OnDemand,
        queue: JobQueue[X, T],
        policy: ResidencyPolicy,
        bench: Bench,
    ) -> None:
        self.name = name
        self._event = name.lower()
        self.queue = queue
        self._model = model
        self._residency = Residency(policy)
        self._bench = bench
        self._expected = 0
        self._expected_urgent = 0
        self._move: Move | None = None
        self._load: asyncio.Task[None] | None = None
        self._load_began_at = 0.0
        self.loads = self.load_failures = 0
        self.load_seconds = 0.0

    @property
    def wanted(self) -> bool:
        """A job waits or is expected."""
        return self._expected > 0 or bool(self.queue)

    @property
    def urgent(self) -> bool:
        """One of those is urgent."""
        return self._expected_urgent > 0 or self.queue.urgent

    @property
    def state(self) -> State:
        """Where its weights are."""
        return self._residency.state

    @property
    def on_device(self) -> bool:
        """It holds memory of the device."""
        return self._residency.state is State.DEVICE

    @property
    def ready(self) -> bool:
        """There is a step to make: a move, or a batch."""
        return self._move is not None or (self.on_device and bool(self.queue))

    @contextmanager
    def expect(self, *, urgent: bool) -> Iterator[None]:
        """Say that a job will come: the model begins to load, and stays until the end."""
        self._expected += 1
        self._expected_urgent += urgent
        self._bench.changed.set()
        try:
            yield
        finally:
            self._expected -= 1
            self._expected_urgent -= urgent
            self._bench.changed.set()

    def refresh(self, now: float) -> None:
        """Take in what time and the load have done; begin a load where one is due."""
        if self._load is not None and self._load.done():
            self._end_load(self._load, now)
        reason = self._residency.unavailable_reason(now)
        if reason is not None:
            self.queue.fail(reason)
        self._move = self._residency.next_move(now, wanted=self.wanted)
        if self._move is Move.LOAD:
            self._begin_load(now)
            self._move = None

    def next_change_at(self) -> float | None:
        """Return when `refresh` may find something new though nothing happened, None if never."""
        return self._residency.next_change_at(wanted=self.wanted)

    async def step(self, make_room: MakeRoom, most_seconds: float | None) -> None:
        """Make the move that is due, or run a batch of about `most_seconds` at most.

        Raises:
            DeviceFailed: the process cannot go on.
        """
        if self._move is Move.TO_DEVICE:
            await self._to_device(make_room)
        elif self._move is not None:
            idle_seconds = round(self._residency.idle_seconds(self._bench.clock()), 3)
            move = await self.leave()
            _log.info(f"{self._event} offloaded", idle_seconds=idle_seconds, to=_PLACE[move])
        else:
            await self.queue.run_batch(self._bench.gpu, self._bench.clock, make_room, most_seconds)
            self._residency.worked(self._bench.clock())

    async def leave(self) -> Move:
        """Take the model off the device, or out of host memory if it is off already.

        Raises:
            DeviceFailed: it cannot be taken off.
        """
        move = self._residency.leaving()
        offload = move is Move.OFFLOAD
        step = self._model.offload if offload else self._model.unload
        failed_step = await self._bench.gpu.attempt(step)
        if failed_step is not None:
            raise DeviceFailed(f"{self.name} cannot be taken off it: {failed_step.reason}")
        if offload:
            self._residency.offloaded(self._bench.clock())
        else:
            self._residency.unloaded()
        return move

    async def try_once(self, content: X) -> T | None:
        """Load the model, run one job and let it go again, before the engine runs.

        Returns:
            The answer; None where the device has no room for it now.

        Raises:
            ModelUnavailable: it cannot be loaded, or fails on a sound input.
            DeviceFailed: the process cannot go on.
        """
        await asyncio.to_thread(self._model.load)

        def run() -> list[T]:
            self._model.to_device()
            return list(self.queue.forward([content]))

        answer = await self._bench.gpu.attempt(run)
        await self._bench.gpu.attempt(self._model.unload)
        if not isinstance(answer, StepFailed):
            return answer[0]
        if not answer.out_of_memory:
            raise ModelUnavailable(
                f"{self._model.identity.model}: {self.name} fails on a sound input: {answer.reason}"
            )
        _log.warning(f"{self._event} does not fit", reason=answer.reason)
        return None

    def cancel(self) -> None:
        """Drop what waits, and the load."""
        self.queue.cancel()
        if self._load is not None:
            self._load.cancel()

    async def _to_device(self, make_room: MakeRoom) -> None:
        failed_step = await self._bench.gpu.attempt(self._model.to_device)
        if failed_step is None:
            self._residency.on_device(self._bench.clock())
            _log.info(f"{self._event} on device")
            return
        await self._bench.gpu.attempt(self._model.unload)
        if failed_step.out_of_memory and await make_room():
            self._residency.unloaded()  # and it is loaded again, for there is room now
        else:
            self._failed(failed_step.reason)

    def _begin_load(self, now: float) -> None:
        _log.info(f"{self._event} loading")
        self._residency.loading()
        self._load_began_at = now
        self._load = asyncio.create_task(asyncio.to_thread(self._model.load))
        self._load.add_done_callback(lambda _: self._bench.changed.set())

    def _end_load(self, load: "asyncio.Task[None]", now: float) -> None:
        self._load = None
        try:
            load.result()
        except ModelUnavailable as exc:
            self._failed(str(exc))
        else:
            self._residency.loaded(now)
            seconds = now - self._load_began_at
            self.loads += 1
            self.load_seconds += seconds
            _log.info(f"{self._event} loaded", seconds=round(seconds, 3))

    def _failed(self, reason: str) -> None:
        message = f"{self.name} cannot be had: {reason}"
        wait = self._residency.failed(self._bench.clock(), message)
        self.queue.fail(message)
        self.load_failures += 1
        _log.warning(f"{self._event} load failed", reason=reason, retry_in_seconds=wait)
