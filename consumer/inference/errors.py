"""How the device and the checkpoints fail."""

from imagelane.exits import ExitCode, FatalError


class DeviceOutOfMemory(Exception):
    """The step did not fit; a smaller one may."""


class DeviceFailed(FatalError):
    """The device gave an error that no retry in this process can heal."""

    def __init__(self, reason: str) -> None:
        super().__init__(ExitCode.DEVICE, f"the device failed: {reason}; start the process again")


class ModelUnavailable(FatalError):
    """A checkpoint cannot be had: ends the program at start-up; later, it fails those captions."""

    def __init__(self, reason: str) -> None:
        super().__init__(ExitCode.MODEL, reason)
