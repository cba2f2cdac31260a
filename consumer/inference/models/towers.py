"""Image and text towers by model type. One more type is one more table entry.

The two towers of a type share one space. Each is loaded without the weights of the other.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.clip.configuration_clip import CLIPConfig
from transformers.models.clip.modeling_clip import (
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
)
from transformers.models.metaclip_2.configuration_metaclip_2 import MetaClip2Config
from transformers.models.metaclip_2.modeling_metaclip_2 import (
    MetaClip2TextModelWithProjection,
    MetaClip2VisionModelWithProjection,
)
from transformers.models.siglip.configuration_siglip import SiglipConfig
from transformers.models.siglip.modeling_siglip import SiglipTextModel, SiglipVisionModel

from consumer.inference.models.checkpoint import Checkpoint, unreadable

# CLIP's first configurations have this end mark; the model then takes the highest id instead.
_LEGACY_END: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Towers:
    """The two towers of a model type, and their outputs' fields of vectors.

    `pads`: texts are padded to the model's longest, as in its training. Otherwise the vector is
    that of the end mark, and later tokens have no effect.
    `legacy_end`: an end mark of 2 in the configuration means the highest id.
    """

    config: type[PreTrainedConfig]
    image: type[PreTrainedModel]
    text: type[PreTrainedModel]
    image_output: str
    text_output: str
    pads: bool = False
    legacy_end: bool = False

    def configs(self, checkpoint: Checkpoint) -> tuple[Any, Any]:
        """Return the configurations of the image tower and of the text tower."""
        with unreadable(checkpoint.folder):
            whole: Any = self.config.from_pretrained(checkpoint.folder, local_files_only=True)
            image, text = whole.vision_config, whole.text_config
            if hasattr(whole, "projection_dim"):
                # The whole model's width of the vectors wins over its towers'.
                image.projection_dim = text.projection_dim = whole.projection_dim
        return image, text

    def end(self, text_config: Any) -> int | None:
        """Return the id of the end mark; None if the tower does not look for it by id."""
        end: int = text_config.eos_token_id
        return None if self.pads or (self.legacy_end and end == _LEGACY_END) else end


TOWERS: Final = {
    "clip": Towers(
        config=CLIPConfig,
        image=CLIPVisionModelWithProjection,
        text=CLIPTextModelWithProjection,
        image_output="image_embeds",
        text_output="text_embeds",
        legacy_end=True,
    ),
    "siglip": Towers(
        config=SiglipConfig,
        image=SiglipVisionModel,
        text=SiglipTextModel,
        image_output="pooler_output",
        text_output="pooler_output",
        pads=True,
    ),
    "metaclip_2": Towers(
        config=MetaClip2Config,
        image=MetaClip2VisionModelWithProjection,
        text=MetaClip2TextModelWithProjection,
        image_output="image_embeds",
        text_output="text_embeds",
    ),
}


def vectors_of(output: Any, name: str) -> torch.Tensor:
    """Return the vectors of a tower's output.

    Raises:
        ValueError: the output has none, since the tower lacks its last layer.
    """
    vectors: torch.Tensor | None = getattr(output, name)
    if vectors is None:
        raise ValueError(f"the model gives no {name}")
    return vectors
