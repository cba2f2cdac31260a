"""The two networks, the training-only helper heads, and a tower started from the other's."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
)

from examples.models.dataset import IMAGE_SIDE
from examples.models.drawings import BACKGROUNDS, COLOURS, COUNTS, SHAPES, SIZES, Family, Scene
from examples.models.tiny_tokenizers import BLIP_MAX_TOKENS, CLIP_MAX_TOKENS, caption_start_id

WIDTH = 128
PROJECTION = 64
IMAGE_LAYERS = 3
TEXT_LAYERS = 2
ABSENT = -100
TOWER = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_attention_heads": 4,
    "projection_dim": PROJECTION,
}
IMAGE_TOWER = TOWER | {
    "num_hidden_layers": IMAGE_LAYERS,
    "image_size": IMAGE_SIDE,
    "patch_size": 8,
}
TEXT_TOWER = TOWER | {"num_hidden_layers": TEXT_LAYERS}


def build_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Build an untrained CLIP of 0.8 million parameters."""
    text = TEXT_TOWER | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": CLIP_MAX_TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        # The true id: with CLIP's legacy value of 2 the text would be pooled at the highest id.
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = IMAGE_TOWER | {"hidden_act": "gelu"}
    return CLIPModel(CLIPConfig(projection_dim=PROJECTION, vision_config=vision, text_config=text))


def build_blip(tokenizer: BertTokenizer) -> BlipForConditionalGeneration:
    """Build an untrained BLIP of 0.9 million parameters."""
    # BLIP's default spread for the image tower is 1e-10: trained from scratch it stays blind.
    vision = IMAGE_TOWER | {"initializer_range": 0.08}
    text = TEXT_TOWER | {
        "vocab_size": len(tokenizer) + 2,
        "encoder_hidden_size": WIDTH,
        "max_position_embeddings": BLIP_MAX_TOKENS,
        "initializer_range": 0.06,
        "bos_token_id": caption_start_id(tokenizer),
        "sep_token_id": tokenizer.sep_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = BlipConfig(
        vision_config=vision,
        text_config=text,
        projection_dim=PROJECTION,
        image_text_hidden_size=PROJECTION,
    )
    return BlipForConditionalGeneration(config)


class HelperHeads(nn.Module):
    """Read a scene's attributes off the pooled image state, during training only.

    Captions alone are a thin signal for an untrained image tower: these saved most of the steps.
    """

    def __init__(self) -> None:
        super().__init__()
        things = [len(COLOURS), len(SHAPES)]
        self._sizes = [len(Family), len(SIZES), len(COUNTS), len(BACKGROUNDS), *things, *things]
        self.linear = nn.Linear(WIDTH, sum(self._sizes))

    def loss(self, pooled: Tensor, labels: Tensor) -> Tensor:
        """Sum the attributes' losses; an attribute that is absent from a scene counts nothing."""
        logits = self.linear(pooled).split(self._sizes, dim=1)
        losses = [
            functional.cross_entropy(head, label, ignore_index=ABSENT, reduction="sum")
            for head, label in zip(logits, labels.T, strict=True)
        ]
        return torch.stack(losses).sum() / len(pooled)


def helper_labels(scenes: Sequence[Scene]) -> Tensor:
    """Number the attributes of each scene in the order of the heads."""
    return torch.tensor([_attributes(scene) for scene in scenes])


def _attributes(scene: Scene) -> list[int]:
    size = count = background = ABSENT
    shown = scene.things
    if scene.family is Family.SINGLE and scene.size is not None:
        size = list(SIZES).index(scene.size)
    if scene.family is Family.COUNTED:
        count = list(COUNTS).index(len(scene.things))
    if scene.family in (Family.SINGLE, Family.COUNTED):
        background = list(BACKGROUNDS).index(scene.background)
        shown = scene.things[:1]
    things = [i for t in shown for i in (list(COLOURS).index(t.colour), SHAPES.index(t.shape))]
    things += [ABSENT] * (4 - len(things))
    return [list(Family).index(scene.family), size, count, background, *things]


@torch.no_grad()
def start_from_clip(blip: BlipForConditionalGeneration, clip: CLIPModel, pictures: Tensor) -> None:
    """Copy CLIP's trained image tower into BLIP's.

    CLIP normalises its patch embeddings and BLIP does not, so that norm is folded in with its mean
    scale over a few `pictures`: approximate, and made good within a few hundred steps.
    """
    source: Any = clip.vision_model  # Any, because a module's parts have no types of their own.
    target: Any = blip.vision_model
    norm, patches = source.pre_layrnorm, source.embeddings.patch_embedding.weight
    gain = norm.weight / source.embeddings(pictures).std(-1).mean()
    centred = (patches - patches.mean(0, keepdim=True)) * gain[:, None, None, None]
    positions = source.embeddings.position_embedding.weight.clone()
    positions[0] += source.embeddings.class_embedding
    positions = (positions - positions.mean(-1, keepdim=True)) * gain + norm.bias
    target.embeddings.patch_embedding.weight.copy_(centred)
    target.embeddings.patch_embedding.bias.zero_()
    target.embeddings.class_embedding.zero_()
    target.embeddings.position_embedding.copy_(positions[None])
    for old, new in zip(source.encoder.layers, target.encoder.layers, strict=True):
        parts = [old.self_attn.q_proj, old.self_attn.k_proj, old.self_attn.v_proj]
        new.self_attn.qkv.weight.copy_(torch.cat([part.weight for part in parts]))
        new.self_attn.qkv.bias.copy_(torch.cat([part.bias for part in parts]))
        new.self_attn.projection.load_state_dict(old.self_attn.out_proj.state_dict())
        for name in ("layer_norm1", "layer_norm2", "mlp"):
            getattr(new, name).load_state_dict(getattr(old, name).state_dict())
    target.post_layernorm.load_state_dict(source.post_layernorm.state_dict())
