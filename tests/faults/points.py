"""The points of a consumer that `FAULT` and `MOVE` arm; tests/faults/subject.py says how."""

import os
import signal


class Faults:
    """Counts how often each point is passed, and acts at the armed one."""

    def __init__(self) -> None:
        point, _, number = os.environ.get("FAULT", "none:0").partition(":")
        self._armed, self._pass = point, int(number)
        self._passed = 0
        when, _, moves = os.environ.get("MOVE", "never:").partition(":")
        self._moves = [int(answered) for answered in moves.split(",") if answered]
        self._moves_from_fault = when == "doubt"
        self._answered = 0

    def moves(self) -> bool:
        """Tell whether the group's coordinator is to move before the next request."""
        if self._moves_from_fault and self._passed < self._pass:
            return False
        if self._moves[:1] != [self._answered]:
            return False
        del self._moves[0]
        return True

    def answered(self, error_code: int) -> None:
        """Count a position that was answered."""
        if not (self._moves_from_fault and self._passed < self._pass):
            self._answered += not error_code

    def reached(self, point: str) -> bool:
        """Tell whether this is the armed pass of a point."""
        if point != self._armed:
            return False
        self._passed += 1
        return self._passed == self._pass

    def kill_at(self, point: str) -> None:
        """End the process as a crash does, if it is time."""
        if self.reached(point):
            os.kill(os.getpid(), signal.SIGKILL)


FAULTS = Faults()
