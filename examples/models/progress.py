"""Print how a training is doing, every fifty steps."""

import time

EVERY = 50


class Progress:
    """Mean losses since the last line, and the seconds since the first step."""

    def __init__(self, *, name: str, steps: int) -> None:
        self._name = name
        self._steps = steps
        self._started = time.monotonic()
        self._losses: list[tuple[float, float]] = []

    def report(self, step: int, loss: float, helper_loss: float) -> None:
        """Note a step's losses and print a line when one is due."""
        self._losses.append((loss, helper_loss))
        if step % EVERY and step != self._steps:
            return
        own, helper = (sum(values) / len(values) for values in zip(*self._losses, strict=True))
        seconds = time.monotonic() - self._started
        print(
            f"{self._name} step {step}/{self._steps} seconds {seconds:.0f}"
            f" loss {own:.4f} helper {helper:.4f}",
            flush=True,
        )
        self._losses.clear()
