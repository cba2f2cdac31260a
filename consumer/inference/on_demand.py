"""A model on demand, BLIP or CLIP's text tower: its jobs, its load, its moves.

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
class DeviceContext:
    """The shared parts of one device's models. `changed` wakes the engine."""

    gpu: GpuThread
    clock: Callable[[], float]
    changed: asyncio.Event


class OnDemandModel(Generic[X, T]):
    """One model on demand; its lines in the log begin with `name` in lower case."""

    def __init__(
        self,
        name: str,
        model: OnDemand,
        queue: JobQueue[X, T],
        policy: ResidencyPolicy,
        context: DeviceContext,
    ) -> None:
        self.name = name
        self._event = name.lower()
        self.queue = queue
        self._model = model
        self._residency = Residency(policy)
        self._context = context
        self._expected = 0
        self._expected_urgent = 0
        self._move: Move | None = None
        self._load: asyncio.Task[None] | None = None
        self._load_began_at = 0.0
        self.loads = self.load_failures = 0
        self.load_seconds = 0.0

    @property
    def wanted(self) -> bool:
        """Whether a job waits or is expected."""
        return self._expected > 0 or bool(self.queue)

    @property
    def urgent(self) -> bool:
        """Whether such a job is urgent."""
        return self._expected_urgent > 0 or self.queue.urgent

    @property
    def state(self) -> State:
        """Where the weights are."""
        return self._residency.state

    @property
    def on_device(self) -> bool:
        """Whether the weights take device memory."""
        return self._residency.state is State.DEVICE

    @property
    def ready(self) -> bool:
        """Whether a step is due: a move, or a batch."""
        return self._move is not None or (self.on_device and bool(self.queue))

    @contextmanager
    def expect(self, *, urgent: bool) -> Iterator[None]:
        """Announce a job: the model begins to load, and stays until the block ends."""
        self._expected += 1
        self._expected_urgent += urgent
        self._context.changed.set()
        try:
            yield
        finally:
            self._expected -= 1
            self._expected_urgent -= urgent
            self._context.changed.set()

    def refresh(self, now: float) -> None:
        """Follow the clock and the load; begin a load that is due."""
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
        """Return the next time at which `refresh` changes without an event; None if never."""
        return self._residency.next_change_at(wanted=self.wanted)

    async def step(self, make_room: MakeRoom, most_seconds: float | None) -> None:
        """Make the move that is due, or run a batch of about `most_seconds` at most."""
        if self._move is Move.TO_DEVICE:
            await self._to_device(make_room)
        elif self._move is not None:
            idle_seconds = round(self._residency.idle_seconds(self._context.clock()), 3)
            move = await self.leave()
            _log.info(f"{self._event} offloaded", idle_seconds=idle_seconds, to=_PLACE[move])
        else:
            await self.queue.start_batch(
                self._context.gpu, self._context.clock, make_room, most_seconds
            )
            self._residency.worked(self._context.clock())

    async def leave(self) -> Move:
        """Take the model off the device, or out of host memory if it is off already.

        Raises:
            DeviceFailed: it cannot be taken off.
        """
        move = self._residency.leaving()
        offload = move is Move.OFFLOAD
        step = self._model.offload if offload else self._model.unload
        failed_step = await self._context.gpu.attempt(step)
        if failed_step is not None:
            raise DeviceFailed(f"{self.name} cannot be taken off it: {failed_step.reason}")
        if offload:
            self._residency.offloaded(self._context.clock())
        else:
            self._residency.unloaded()
        return move

    async def try_once(self, content: X) -> T | None:
        """Load the model, run one job and unload the model, before the engine runs.

        Returns:
            The output; None if the model does not fit on the device now.

        Raises:
            ModelUnavailable: it cannot be loaded, or fails on a sound input.
        """
        await asyncio.to_thread(self._model.load)

        def run() -> list[T]:
            self._model.to_device()
            return list(self.queue.forward([content]))

        answer = await self._context.gpu.attempt(run)
        await self._context.gpu.attempt(self._model.unload)
        if not isinstance(answer, StepFailed):
            return answer[0]
        if not answer.out_of_memory:
            raise ModelUnavailable(
                f"{self._model.identity.model}: {self.name} fails on a sound input: {answer.reason}"
            )
        _log.warning(f"{self._event} does not fit", reason=answer.reason)
        return None

    def cancel(self) -> None:
        """Cancel the waiting jobs and the load."""
        self.queue.cancel()
        if self._load is not None:
            self._load.cancel()

    async def _to_device(self, make_room: MakeRoom) -> None:
        failed_step = await self._context.gpu.attempt(self._model.to_device)
        if failed_step is None:
            self._residency.on_device(self._context.clock())
            _log.info(f"{self._event} on device")
            return
        await self._context.gpu.attempt(self._model.unload)
        if failed_step.out_of_memory and await make_room():
            self._residency.unloaded()  # the next `refresh` loads it again, into the new room
        else:
            self._failed(failed_step.reason)

    def _begin_load(self, now: float) -> None:
        _log.info(f"{self._event} loading")
        self._residency.loading()
        self._load_began_at = now
        self._load = asyncio.create_task(asyncio.to_thread(self._model.load))
        self._load.add_done_callback(lambda _: self._context.changed.set())

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
        wait = self._residency.failed(self._context.clock(), message)
        self.queue.fail(message)
        self.load_failures += 1
        _log.warning(f"{self._event} load failed", reason=reason, retry_in_seconds=wait)
