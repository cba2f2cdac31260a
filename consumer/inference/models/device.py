"""The models' device and dtype, the meaning of torch's errors, and giving memory back."""

import ctypes
import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from consumer.inference.errors import DeviceFailed, DeviceOutOfMemory
from consumer.pixels import Pixels
from imagelane.exits import ExitCode, FatalError

# Messages for a lack of memory without a class in torch: the host's, cuBLAS's, cuDNN's.
_OUT_OF_MEMORY: Final = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_SUPPORTED",
)
_DEVICE_FAILED: Final = ("CUDA error", "CUBLAS_STATUS_", "CUDNN_STATUS_", "cuDNN error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A torch device, and the models' dtype on it."""

    torch_device: torch.device
    dtype: torch.dtype

    @property
    def is_host(self) -> bool:
        """Whether device memory is host memory."""
        return self.torch_device.type == "cpu"

    def __str__(self) -> str:
        return f"{self.torch_device}, {str(self.dtype).removeprefix('torch.')}"


def choose_device(name: str = "auto", dtype: str = "auto", threads: int = 0) -> Device:
    """Choose the device and its dtype, and set torch's threads (0: torch's own choice).

    Args:
        name: `auto` (the first GPU, else the CPU), `cpu`, `cuda` or `cuda:N`.
        dtype: `auto`, `float32`, `bfloat16` or `float16`; `auto` is half precision on a GPU and on
            a CPU that multiplies bfloat16 faster.

    Raises:
        FatalError: this machine has no such device.
    """
    if threads:
        torch.set_num_threads(threads)
    gpus = torch.cuda.device_count()
    device = torch.device(("cuda:0" if gpus else "cpu") if name == "auto" else name)
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise FatalError(
            ExitCode.DEVICE,
            f"DEVICE is {name}, but torch sees {gpus} GPUs here; set DEVICE to auto or cpu, or "
            "look at the driver with nvidia-smi",
        )
    chosen = _best_dtype(device) if dtype == "auto" else getattr(torch, dtype)
    return Device(torch_device=device, dtype=chosen)


def _best_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cpu":
        is_faster = _multiplies_bfloat16(torch.cpu.get_capabilities())
        return torch.bfloat16 if is_faster else torch.float32
    with torch.cuda.device(device):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


def _multiplies_bfloat16(capabilities: Mapping[str, object]) -> bool:
    """Tell whether this CPU is faster in bfloat16 than in float32 (docs/performance.md).

    AMX is, and AVX512_BF16 of AMD, 2.5 to 4 times; AVX512_BF16 of Intel has 0.7 of float32's rate.
    """
    is_amd = str(capabilities.get("cpu_name", "")).startswith("AMD")
    return bool(capabilities.get("amx_bf16") or (is_amd and capabilities.get("avx512_bf16")))


@contextmanager
def device_errors() -> Iterator[None]:
    """Translate torch's errors.

    Raises:
        DeviceOutOfMemory: a smaller step may fit.
        DeviceFailed: this process can no longer use the device.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as exc:
        meaning = meaning_of(exc)
        if meaning is None:
            raise
        raise meaning from exc


def meaning_of(error: RuntimeError | MemoryError) -> DeviceOutOfMemory | DeviceFailed | None:
    """Return the device's fault behind an error; None: the input is at fault."""
    text = str(error)
    first_line = text.partition("\n")[0]
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return DeviceOutOfMemory(first_line)
    if any(sign in text for sign in _OUT_OF_MEMORY):
        return DeviceOutOfMemory(first_line)
    if isinstance(error, torch.AcceleratorError) or any(sign in text for sign in _DEVICE_FAILED):
        return DeviceFailed(first_line)
    return None


def unit_vectors(vectors: torch.Tensor) -> NDArray[np.float32]:
    """Return the vectors, shape (n, dim), in host memory, each of length 1, float32.

    Raises:
        ValueError: one is not finite.
    """
    unit: NDArray[np.float32] = torch.nn.functional.normalize(vectors.float()).cpu().numpy()
    if not np.isfinite(unit).all():
        raise ValueError("the embedding is not finite")
    return unit


def free_memory() -> None:
    """Give unused memory back: to the device's driver, and from the C library to the system."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    # glibc keeps freed memory below the top of its heaps: 10 to 20 % of a process with CLIP.
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def memory_bytes(device: Device) -> dict[str, int]:
    """Return the device's memory in bytes by kind; nothing for a CPU, which has the process's."""
    if device.is_host:
        return {}
    free, total = torch.cuda.mem_get_info(device.torch_device)
    return {
        "allocated": torch.cuda.memory_allocated(device.torch_device),
        "reserved": torch.cuda.memory_reserved(device.torch_device),
        "free": free,
        "total": total,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalization:
    """An image processor's arithmetic: scale, subtract the mean, divide by the std."""

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, images: Sequence[Pixels], device: Device) -> torch.Tensor:
        """Return the batch on the device, shape (images, 3, height, width), in the device's dtype.

        The pixels travel as bytes, a quarter of float32, and are normalised there in float32. For a
        GPU pinned memory gathers them, so this thread does not wait for the copy.
        """
        shape = len(images), *images[0].shape
        host = torch.empty(shape, dtype=torch.uint8, pin_memory=device.torch_device.type == "cuda")
        np.stack(images, out=host.numpy())
        values = host.to(device.torch_device, non_blocking=True).permute(0, 3, 1, 2).float()
        mean = _constant(self.mean, device.torch_device)
        std = _constant(self.std, device.torch_device)
        return values.mul_(self.scale).sub_(mean).div_(std).to(device.dtype)


@lru_cache
def _constant(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Return one value per channel, shape (3, 1, 1); cached, so that no step waits for its copy.

    The dtype is explicit: a load in another thread changes torch's default meanwhile.
    """
    return torch.tensor(values, dtype=torch.float32, device=device).view(3, 1, 1)
