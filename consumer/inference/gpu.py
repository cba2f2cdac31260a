"""The one thread that may touch the device, and the jobs that wait for it.

A failed step is returned as a `StepFailed` value: an exception's traceback would pin the failed
batch's memory through the retry. A failed batch is halved, down to the job at fault.
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, Generic, TypeVar

from consumer.errors import Failed
from consumer.inference.batching import BatchSize
from consumer.inference.errors import DeviceOutOfMemory, ModelUnavailable
from schemas import Code

_LONGEST_REASON: Final = 200  # characters; torch explains itself at length

X = TypeVar("X")
T = TypeVar("T")
MakeRoom = Callable[[], Awaitable[bool]]  # frees device memory; False: there is none to free


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailed:
    """A failed step; the device is still usable."""

    reason: str
    out_of_memory: bool


@dataclass(frozen=True, slots=True)
class Output(Generic[T]):
    """A model's output for one input, and how long the whole batch took."""

    value: T
    batch_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Generic[X, T]):
    """A waiting input; cancel `answer` to withdraw it."""

    content: X
    urgent: bool
    answer: "asyncio.Future[Output[T] | Failed]"

    async def result(self) -> Output[T]:
        """Wait for the answer.

        Raises:
            Failed: the model fails on this input alone, or is unavailable.
        """
        answer = await self.answer
        if isinstance(answer, Failed):
            raise answer
        return answer


class GpuThread:
    """One step at a time, in one thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gpu")

    def attempt(self, step: Callable[[], T]) -> "asyncio.Future[T | StepFailed]":
        """Run `step` in the GPU thread, after those that it has.

        The future raises DeviceFailed if the process cannot go on.
        """
        return asyncio.get_running_loop().run_in_executor(self._thread, _attempt, step)

    async def close(self) -> None:
        """Wait for the running step, and end the thread."""
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)


def _attempt(step: Callable[[], T]) -> T | StepFailed:
    try:
        return step()
    except DeviceOutOfMemory:
        return StepFailed(reason="out of memory", out_of_memory=True)
    except ModelUnavailable as exc:
        return StepFailed(reason=str(exc), out_of_memory=False)
    except (ValueError, RuntimeError) as exc:
        first_line = str(exc).partition("\n")[0][:_LONGEST_REASON]
        return StepFailed(reason=first_line or type(exc).__name__, out_of_memory=False)


class JobQueue(Generic[X, T]):
    """The jobs of one model: urgent ones first, each kind in order."""

    def __init__(self, forward: Callable[[Sequence[X]], Iterable[T]], size: BatchSize) -> None:
        self.size = size
        self.forward = forward
        self._jobs: Mapping[bool, deque[Job[X, T]]] = {True: deque(), False: deque()}  # by urgency
        self.batches: Counter[int] = Counter()  # by number of jobs
        self.busy_seconds = 0.0
        self._ended_at = -math.inf  # the last batch
        self._started: dict[int, list[Job[X, T]]] = {}  # batches without an answer
        self.out_of_memory_splits = 0

    def __len__(self) -> int:
        """Count the waiting jobs by a look at each; `bool(queue)` looks at the first alone."""
        return sum(not job.answer.done() for jobs in self._jobs.values() for job in jobs)

    def __bool__(self) -> bool:
        return self._has(urgent=True) or self._has(urgent=False)

    @property
    def urgent(self) -> bool:
        """Whether an urgent job waits."""
        return self._has(urgent=True)

    def _has(self, *, urgent: bool) -> bool:
        jobs = self._jobs[urgent]
        while jobs and jobs[0].answer.done():  # withdrawn
            jobs.popleft()
        return bool(jobs)

    def put(self, content: X, *, urgent: bool) -> Job[X, T]:
        """Queue one input."""
        answer = asyncio.get_running_loop().create_future()
        job: Job[X, T] = Job(content=content, urgent=urgent, answer=answer)
        self._jobs[urgent].append(job)
        return job

    def fail(self, reason: str) -> None:
        """Fail every waiting job."""
        for job in self._drain():
            _deliver(job, Failed(Code.INFERENCE_FAILED, reason))

    def cancel(self) -> None:
        """Cancel every job that has no answer."""
        for job in chain(self._drain(), *self._started.values()):
            job.answer.cancel()

    def _drain(self) -> Iterator[Job[X, T]]:
        for jobs in self._jobs.values():
            while jobs:
                yield jobs.popleft()

    @property
    def has_full_batch(self) -> bool:
        """Whether as many jobs wait as a batch may have, none of them urgent."""
        return not self.urgent and len(self._jobs[False]) >= self.size.limit

    def start_batch(
        self,
        gpu: GpuThread,
        clock: Callable[[], float],
        make_room: MakeRoom,
        most_seconds: float | None = None,
    ) -> Coroutine[Any, Any, None]:
        """Hand waiting jobs to the GPU thread, up to the limit; the coroutine delivers the answers.

        `make_room` frees memory when it runs out. Urgent jobs get a batch of their own, for other
        jobs would make it longer. `most_seconds` bounds the batch, at the pace of the last one.
        """
        jobs = self._next_jobs(self.size.within(most_seconds))
        self._started[id(jobs)] = jobs
        contents, started_at = [job.content for job in jobs], clock()
        step = gpu.attempt(lambda: list(self.forward(contents)))

        async def finish() -> None:
            outcomes = self._outcomes(gpu, contents, step, make_room)
            await self._deliver_all(jobs, outcomes, started_at, clock)

        return finish()

    async def _deliver_all(
        self,
        jobs: list[Job[X, T]],
        coming: Awaitable[list[T | Failed]],
        started_at: float,
        clock: Callable[[], float],
    ) -> None:
        try:
            outcomes = await coming
        except BaseException:
            for job in jobs:
                job.answer.cancel()
            raise
        finally:
            del self._started[id(jobs)]
        # A step that was handed over ahead began when the one before it ended.
        ended_at = clock()
        seconds = ended_at - max(started_at, self._ended_at)
        self._ended_at = ended_at
        self.size.took(len(jobs), seconds)
        batch_ms = seconds * 1000
        self.batches[len(jobs)] += 1
        self.busy_seconds += seconds
        for job, outcome in zip(jobs, outcomes, strict=True):
            answer = outcome if isinstance(outcome, Failed) else Output(outcome, batch_ms)
            _deliver(job, answer)

    def _next_jobs(self, most: int) -> list[Job[X, T]]:
        waiting = self._jobs[self.urgent]
        jobs: list[Job[X, T]] = []
        while waiting and len(jobs) < most:
            job = waiting.popleft()
            if not job.answer.done():
                jobs.append(job)
        return jobs

    async def _outcomes(
        self,
        gpu: GpuThread,
        contents: list[X],
        step: "asyncio.Future[list[T] | StepFailed] | None",
        make_room: MakeRoom,
    ) -> list[T | Failed]:
        outcomes: list[T | Failed] = []
        pieces = [contents]
        largest, ran_out = 0, False
        while pieces:
            piece = pieces.pop()
            step = step or gpu.attempt(lambda piece=piece: list(self.forward(piece)))  # type: ignore[misc]
            values, step = await step, None
            if not isinstance(values, StepFailed):
                outcomes += values
                largest = max(largest, len(piece))
                continue
            ran_out = ran_out or values.out_of_memory
            if values.out_of_memory and await make_room():
                pieces.append(piece)
            elif len(piece) == 1:
                outcomes.append(Failed(Code.INFERENCE_FAILED, values.reason))
            else:
                self.out_of_memory_splits += values.out_of_memory
                half = len(piece) // 2
                pieces += [piece[half:], piece[:half]]
        if ran_out:
            self.size.ran_out(len(contents), worked=largest)
        else:
            self.size.worked(largest)
        return outcomes


def _deliver(job: Job[X, T], outcome: Output[T] | Failed) -> None:
    if not job.answer.done():  # else withdrawn
        job.answer.set_result(outcome)
