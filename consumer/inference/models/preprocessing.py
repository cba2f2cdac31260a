"""A checkpoint's image processor as the steps that imagelane makes.

The decoding processes resize and crop; the device scales and normalises. A processor with any other
step is refused by name: the model would see other pictures than in its training.
"""

from collections.abc import Sequence
from typing import Any, Final

from transformers import AutoImageProcessor
from transformers.image_processing_backends import PilBackend

from consumer.inference.errors import ModelUnavailable
from consumer.inference.models.checkpoint import Checkpoint, unreadable
from consumer.inference.models.device import Normalization
from consumer.pixels import Resize

# A processor's class must inherit these: imagelane makes the base class's steps.
_STEPS: Final = (
    "preprocess",
    "_preprocess",
    "process_image",
    "resize",
    "center_crop",
    "rescale",
    "normalize",
)
_SIZES: Final = ("height", "width", "shortest_edge", "longest_edge", "max_height", "max_width")


def preprocessing(
    checkpoint: Checkpoint, image_size: int | Sequence[int]
) -> tuple[Resize, Normalization]:
    """Read the image processor's configuration; `image_size` is the model's.

    Raises:
        ModelUnavailable: it is missing, has other steps, or makes pictures of another size.
    """
    with unreadable(checkpoint.folder):
        processor: Any = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            checkpoint.folder, local_files_only=True, trust_remote_code=False, backend="pil"
        )
        _check_steps(checkpoint, processor)
        resize = _resize(checkpoint, processor)
        normalization = _normalization(processor)
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if (resize.height, resize.width) != sides:
        raise _unsupported(
            checkpoint,
            f"makes pictures of {resize.height} x {resize.width}, the model takes "
            f"{' x '.join(map(str, sides))}",
        )
    return resize, normalization


def _check_steps(checkpoint: Checkpoint, processor: Any) -> None:
    kind = type(processor)
    own = [name for name in _STEPS if getattr(kind, name, None) is not getattr(PilBackend, name)]
    if own:
        raise _unsupported(
            checkpoint, f"is a {kind.__name__}, which has a way of its own to {own[0]}"
        )
    if not processor.do_resize:
        raise _unsupported(checkpoint, "does not resize")
    if getattr(processor, "do_pad", False):
        raise _unsupported(checkpoint, "pads")


def _resize(checkpoint: Checkpoint, processor: Any) -> Resize:
    size, crop = _sizes(processor.size), bool(getattr(processor, "do_center_crop", False))
    final = _sizes(processor.crop_size) if crop else size
    if final.keys() != {"height", "width"}:
        named = ", ".join(f"{name} {value}" for name, value in final.items())
        lack = f"has a crop_size of {named}" if crop else f"resizes to {named} and does not crop"
        raise _unsupported(checkpoint, f"{lack}: its pictures would be of different sizes")
    if crop and size.keys() not in ({"height", "width"}, {"shortest_edge"}):
        named = ", ".join(f"{name} {value}" for name, value in size.items())
        raise _unsupported(checkpoint, f"resizes to {named}, which is not made here")
    return Resize(
        height=final["height"],
        width=final["width"],
        resample=int(processor.resample),
        crop=crop,
        shortest_edge=size.get("shortest_edge", 0) if crop else 0,
        scaled_height=size.get("height", 0) if crop else 0,
        scaled_width=size.get("width", 0) if crop else 0,
    )


def _sizes(size: Any) -> dict[str, int]:
    found = {name: getattr(size, name, None) for name in _SIZES}
    return {name: int(value) for name, value in found.items() if value}


def _normalization(processor: Any) -> Normalization:
    normalized = bool(processor.do_normalize)
    mean, std = processor.image_mean, processor.image_std
    return Normalization(
        scale=processor.rescale_factor if processor.do_rescale else 1.0,
        mean=_channels(mean) if normalized else (0.0, 0.0, 0.0),
        std=_channels(std) if normalized else (1.0, 1.0, 1.0),
    )


def _channels(values: float | Sequence[float]) -> tuple[float, ...]:
    channels = (values,) * 3 if isinstance(values, float | int) else tuple(values)
    if len(channels) != 3:
        raise ValueError(f"the image processor has {len(channels)} channels, not 3")
    return channels


def _unsupported(checkpoint: Checkpoint, reason: str) -> ModelUnavailable:
    return ModelUnavailable(f"{checkpoint.identity.model}: its image processor {reason}")
