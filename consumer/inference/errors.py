"""Errors of the device and of checkpoints."""

from imagelane.exits import ExitCode, FatalError


class DeviceOutOfMemory(Exception):
    """The step did not fit; a smaller one may."""


class DeviceFailed(FatalError):
    """An error of the device that no retry in this process can heal."""

    def __init__(self, reason: str) -> None:
        super().__init__(ExitCode.DEVICE, f"the device failed: {reason}; start the process again")


class ModelUnavailable(FatalError):
    """A checkpoint cannot be used: ends the program at its start, later fails the model's jobs."""

    def __init__(self, reason: str) -> None:
        super().__init__(ExitCode.MODEL, reason)
