"""Where the weights of a model on demand are, and when they move. Pure: the time is an argument.

    UNLOADED ──► LOADING ──► HOST ◄──► DEVICE
        ▲                     │          │
        └─────────────────────┴──────────┘

The owner asks `next_move`, makes that move, and reports how it went.

Invariants: one move at a time, so a model is loaded once however many jobs wait for it; a wanted
model never leaves; the idle clock starts at the end of a batch, so health checks and metrics cannot
keep a model resident. On a CPU host and device memory are one: DEVICE goes straight to UNLOADED.
"""

from dataclasses import dataclass
from enum import Enum, auto


class State(Enum):
    """Where the weights are; HOST is host memory, before the device or after it."""

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
    """How long a model stays without work, and how long a failed load is not tried again.

    The idle clock starts when its last batch ends. After `idle_seconds` (None: never, 0: after
    every batch) it leaves the device, after `host_seconds` more it leaves host memory.
    The wait after a failed load doubles, from the first to the longest.
    """

    idle_seconds: float | None = 300
    host_seconds: float | None = None
    host_is_device: bool = False
    first_retry_seconds: float = 5
    longest_retry_seconds: float = 300


class Residency:
    """The state of one model's weights. `wanted`: a job waits for it or is being prepared."""

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
        """Return the next time at which `next_move` changes without an event, None if never."""
        if self.state is State.UNLOADED:
            return self._retry_at if wanted and self._failures else None
        return None if wanted else self._leaves_at()

    def unavailable_reason(self, now: float) -> str | None:
        """Return why the model cannot be had now: its last load failed, too recently to retry.

        None means that its jobs are served, or that it is worth waiting for them.
        """
        refused = self.state is State.UNLOADED and self._failures and now < self._retry_at
        return self._failure if refused else None

    def idle_seconds(self, now: float) -> float:
        """Return the seconds since the model last did something."""
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
        """Record that it is on the device and warm; failures before are forgotten."""
        self.state = State.DEVICE
        self._idle_since = now
        self._failures = 0

    def worked(self, now: float) -> None:
        """Record that a batch ended: the idle clock starts."""
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
            The seconds before it is tried again.
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
        policy = self._policy
        if self.state is State.DEVICE or (self.state is State.HOST and self._offloaded_at is None):
            # Loaded but never used: the idle time applies too.
            return None if policy.idle_seconds is None else self._idle_since + policy.idle_seconds
        if self.state is State.HOST and self._offloaded_at is not None:
            bound = policy.host_seconds
            return None if bound is None else self._offloaded_at + bound
        return None
