"""Which checkpoints embed, and how: a table by model type. A type more is an entry more.

An image tower and a text tower end in one space. Each is loaded by itself, so that no memory holds
the weights of the other.
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

# What CLIP's first configurations say: the model then takes the highest id for the end.
_LEGACY_END: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Towers:
    """The two towers of a model type, and where their outputs have the vectors.

    `pads`: a text is padded to the longest that the model takes, which is how it was trained.
    Otherwise the vector is that of the text's end, and what follows has no say.
    `legacy_end`: an end of 2 in the configuration means the highest id.
    """

    config: type[PreTrainedConfig]
    image: type[PreTrainedModel]
    text: type[PreTrainedModel]
    image_output: str
    text_output: str
    pads: bool = False
    legacy_end: bool = False

    def configs(self, checkpoint: Checkpoint) -> tuple[Any, Any]:
        """Return the configurations of the image tower and of the text tower.

        Raises:
            ModelUnavailable: they cannot be read.
        """
        with unreadable(checkpoint.folder):
            whole: Any = self.config.from_pretrained(checkpoint.folder, local_files_only=True)
            image, text = whole.vision_config, whole.text_config
            if hasattr(whole, "projection_dim"):
                # The whole model goes by its own width of the vectors, whatever the towers' say.
                image.projection_dim = text.projection_dim = whole.projection_dim
        return image, text

    def end(self, text_config: Any) -> int | None:
        """Return the id whose place gives the vector of a text, None where it is not looked for."""
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
        ValueError: it has none: the tower was made without its last layer.
    """
    vectors: torch.Tensor | None = getattr(output, name)
    if vectors is None:
        raise ValueError(f"the model gives no {name}")
    return vectors
