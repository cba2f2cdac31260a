"""The choice of a device, and what torch's errors mean for the process."""

from pathlib import Path

import pytest
import torch

from benchmarks.checkpoints import SMALL
from consumer.inference.errors import DeviceFailed, DeviceOutOfMemory
from consumer.inference.models.captioner import GreedyCaptioner
from consumer.inference.models.checkpoint import inspect
from consumer.inference.models.device import Device, choose_device, device_errors, meaning_of
from imagelane.exits import ExitCode, FatalError
from tests.models.noise import Noise


class Elsewhere(Device):
    """The host, taken for a device with memory of its own."""

    @property
    def is_host(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("has", "dtype"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC 9575F"}, torch.bfloat16),
        ({"avx512_bf16": True, "cpu_name": "Intel(R) Xeon(R)"}, torch.float32),
        ({"avx512_bf16": True}, torch.float32),
        ({"avx512_bf16": False, "cpu_name": "AMD EPYC"}, torch.float32),
        ({"amx_bf16": False}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_cpu_computes_in_bfloat16_where_that_is_faster(
    has: dict[str, object], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AMX, and AVX-512 of AMD; that of Intel makes it slower, and is no reason."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)

    assert choose_device("cpu").dtype is dtype


def test_dtype_that_is_asked_for_is_taken() -> None:
    """Whatever the processor has."""
    assert choose_device("cpu", "float32").dtype is torch.float32
    assert str(choose_device("cpu", "bfloat16")) == "cpu, bfloat16"
    assert choose_device("cpu").is_host


def test_device_that_is_not_there_is_refused() -> None:
    """The line says what torch sees, and the exit code is the device's."""
    with pytest.raises(FatalError, match="cuda:99") as halt:
        choose_device("cuda:99")

    assert halt.value.code is ExitCode.DEVICE


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        MemoryError(),
    ],
)
def test_lack_of_memory(error: RuntimeError | MemoryError) -> None:
    """A smaller step may fit, whichever library ran out."""
    assert isinstance(meaning_of(error), DeviceOutOfMemory)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm"),
    ],
)
def test_broken_device(error: RuntimeError | MemoryError) -> None:
    """The context is lost: only a new process helps."""
    meaning = meaning_of(error)

    assert isinstance(meaning, DeviceFailed)
    assert "\n" not in str(meaning)


def test_other_errors_are_the_inputs_own() -> None:
    """They pass unchanged, for the batch to be split."""
    with pytest.raises(RuntimeError, match="must match"), device_errors():
        torch.zeros(2) + torch.zeros(3)


def test_an_impossible_allocation_is_a_lack_of_memory() -> None:
    """What torch really raises on the host, not what we think it does."""
    with pytest.raises(DeviceOutOfMemory), device_errors():
        torch.empty(2**60, dtype=torch.uint8)


def test_captions_are_the_same_after_an_offload(blip_folder: Path, noise: Noise) -> None:
    """Off the device and back, twice: the host's copies are put back where they belong."""
    device = Elsewhere(torch_device=torch.device("cpu"), dtype=torch.float32)
    blip = GreedyCaptioner(inspect(str(blip_folder), "main", "blip"), device, max_new_tokens=8)
    images = noise(3, SMALL.image_side)
    blip.load()
    captions = []
    for _ in range(3):
        blip.to_device()
        captions.append(blip.caption(images))
        blip.offload()

    assert captions[0] == captions[1] == captions[2]
