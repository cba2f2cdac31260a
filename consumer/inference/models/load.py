"""The models of a process, opened by name and revision."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from consumer.inference.errors import DeviceFailed, DeviceOutOfMemory
from consumer.inference.models.captioner import GreedyCaptioner
from consumer.inference.models.checkpoint import inspect
from consumer.inference.models.clip import load_clip
from consumer.inference.models.clip_text import ClipText
from consumer.inference.models.device import choose_device, memory_bytes
from consumer.inference.ports import Captioner, Embedder, TextEmbedder
from consumer.pixels import Resize
from schemas import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """The checkpoints and their device. `torch_threads`: 0 is torch's own choice."""

    clip: str
    clip_revision: str
    blip: str
    blip_revision: str
    caption_max_tokens: int
    device: str
    dtype: str
    torch_threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """CLIP's image tower on the device, and the models on demand without their weights."""

    embedder: Embedder
    captioner: Captioner
    text_embedder: TextEmbedder
    device: str  # and the dtype, for the log
    host_is_device: bool
    device_memory: Callable[[], Mapping[str, int]]  # bytes by kind

    @property
    def resizes(self) -> dict[Task, Resize]:
        """The pixels that each task's model takes."""
        return {Task.EMBED: self.embedder.resize, Task.CAPTION: self.captioner.resize}


def open_models(options: ModelOptions) -> Models:
    """Load CLIP's image tower, and check the other models; takes seconds, a download minutes.

    Raises:
        FatalError: a checkpoint or the device cannot be used; the message says what to do.
    """
    device = choose_device(options.device, options.dtype, options.torch_threads)
    clip = inspect(options.clip, options.clip_revision, "clip")
    blip = inspect(options.blip, options.blip_revision, "blip")
    try:
        embedder = load_clip(clip, device)
    except DeviceOutOfMemory as exc:
        raise DeviceFailed(f"{options.clip} does not fit ({exc})") from exc
    return Models(
        embedder=embedder,
        captioner=GreedyCaptioner(blip, device, max_new_tokens=options.caption_max_tokens),
        text_embedder=ClipText(clip, device),
        device=str(device),
        host_is_device=device.is_host,
        device_memory=partial(memory_bytes, device),
    )
