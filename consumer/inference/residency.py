"""Where the weights of a model on demand are, and when they move. Pure: time is an argument.

    UNLOADED ──► LOADING ──► HOST ◄──► DEVICE
        ▲           │          │          │
        └───────────┴──────────┴──────────┘

The owner asks `next_move`, makes that move, and reports its end. A wanted model moves to the right,
an idle one to the left; a failed load or move ends in UNLOADED, and its retry waits. On a CPU host
and device memory are one, so an idle model goes straight from DEVICE to UNLOADED.

Invariants: one move at a time, so a model is loaded once however many jobs wait for it; `next_move`
never takes a wanted model away; a batch alone restarts the idle clock of a model on the device, so
health checks and metrics cannot keep it there.
"""

from dataclasses import dataclass
from enum import Enum, auto


class State(Enum):
    """Where the weights are; HOST is host memory alone."""

    UNLOADED = auto()
    LOADING = auto()
    HOST = auto()
    DEVICE = auto()


class Move(Enum):
    LOAD = auto()
    TO_DEVICE = auto()
    OFFLOAD = auto()
    UNLOAD = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidencyPolicy:
    """How long an idle model stays, and how long a failed load waits for its retry.

    An idle model leaves the device after `idle_seconds` (None: never, 0: after every batch), and
    host memory after `host_seconds` more. The wait for a retry doubles, up to the longest.
    """

    idle_seconds: float | None = 300
    host_seconds: float | None = None
    host_is_device: bool = False
    first_retry_seconds: float = 5
    longest_retry_seconds: float = 300


class Residency:
    """The state of one model's weights. `wanted`: a job for it waits or is expected."""

    def __init__(self, policy: ResidencyPolicy) -> None:
        self.state = State.UNLOADED
        self._policy = policy
        self._idle_since = 0.0
        self._offloaded_at: float | None = None
        self._failures = 0
        self._failure = ""
        self._retry_at = 0.0

    def next_move(self, now: float, *, wanted: bool) -> Move | None:
        """Return the move to make now, or None."""
        if self.state is State.LOADING:
            return None
        if wanted:
            return self._towards_device(now)
        due_at = self._leaves_at()
        return self.leaving() if due_at is not None and now >= due_at else None

    def next_change_at(self, *, wanted: bool) -> float | None:
        """Return the next time at which `next_move` changes without an event; None if never."""
        if self.state is State.UNLOADED:
            return self._retry_at if wanted and self._failures else None
        return None if wanted else self._leaves_at()

    def unavailable_reason(self, now: float) -> str | None:
        """Return why the last load failed, until its retry is due; None otherwise."""
        waits = self.state is State.UNLOADED and self._failures and now < self._retry_at
        return self._failure if waits else None

    def idle_seconds(self, now: float) -> float:
        """Return the seconds on the idle clock."""
        return now - self._idle_since

    def loading(self) -> None:
        """Record that a load began."""
        self.state = State.LOADING

    def loaded(self, now: float) -> None:
        """Record that the weights are in host memory."""
        self.state = State.HOST
        self._idle_since = now
        self._offloaded_at = None

    def on_device(self, now: float) -> None:
        """Record that the weights are on the device and warm; earlier failures are forgotten."""
        self.state = State.DEVICE
        self._idle_since = now
        self._failures = 0

    def worked(self, now: float) -> None:
        """Record that a batch ended: the idle clock starts anew."""
        self._idle_since = now

    def offloaded(self, now: float) -> None:
        """Record that the device is free and the weights are in host memory."""
        self.state = State.HOST
        self._offloaded_at = now

    def unloaded(self) -> None:
        """Record that no memory holds the weights."""
        self.state = State.UNLOADED

    def failed(self, now: float, reason: str) -> float:
        """Record that a load or a move to the device failed and left nothing behind.

        Returns:
            The seconds until the retry.
        """
        policy = self._policy
        longest = policy.longest_retry_seconds
        wait = min(longest, policy.first_retry_seconds * 2.0 ** min(self._failures, 32))
        self.state = State.UNLOADED
        self._failures += 1
        self._failure = reason
        self._retry_at = now + wait
        return wait

    def leaving(self) -> Move:
        """Return the move that frees the device, or host memory if the device is free already."""
        on_device = self.state is State.DEVICE and not self._policy.host_is_device
        return Move.OFFLOAD if on_device else Move.UNLOAD

    def _towards_device(self, now: float) -> Move | None:
        if self.state is State.HOST:
            return Move.TO_DEVICE
        if self.state is State.UNLOADED and self.unavailable_reason(now) is None:
            return Move.LOAD
        return None

    def _leaves_at(self) -> float | None:
        if self.state not in (State.HOST, State.DEVICE):
            return None
        since, bound = self._idle_since, self._policy.idle_seconds
        if self.state is State.HOST and self._offloaded_at is not None:  # None: not used yet
            since, bound = self._offloaded_at, self._policy.host_seconds
        return None if bound is None else since + bound
