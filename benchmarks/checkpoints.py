"""Checkpoints with random weights: of the real sizes to measure, and small ones to test with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.blip.processing_blip import BlipProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils.logging import disable_progress_bar

from consumer.pixels import Pixels, Resize

_SPECIAL_TOKENS: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large both towers of a model are."""

    width: int
    layers: int
    heads: int
    image_side: int
    patch: int
    vocabulary: int
    projection: int


SMALL: Final = Size(
    width=64, layers=2, heads=4, image_side=32, patch=8, vocabulary=600, projection=32
)
VIT_B_32: Final = Size(
    width=768, layers=12, heads=12, image_side=224, patch=32, vocabulary=49408, projection=512
)
VIT_L_14: Final = Size(
    width=1024, layers=24, heads=16, image_side=224, patch=14, vocabulary=49408, projection=768
)
# Width and heads of the text tower, where they are not those of the image tower.
_TEXT_TOWERS: Final = {VIT_B_32: (512, 8), VIT_L_14: (768, 12)}
BLIP_BASE: Final = Size(
    width=768, layers=12, heads=12, image_side=384, patch=16, vocabulary=30522, projection=256
)


def noise(count: int, resize: Resize) -> list[Pixels]:
    """Return pictures as a model takes them, each shape (height, width, 3), all different."""
    shape = (count, resize.height, resize.width, 3)
    return list(np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8))


def save_random_clip(folder: Path, size: Size, seed: int = 0) -> None:
    """Save a CLIP whose weights mean nothing."""
    disable_progress_bar()
    torch.manual_seed(seed)
    text_width, text_heads = _TEXT_TOWERS.get(size, (size.width, size.heads))
    text = {
        "vocab_size": size.vocabulary,
        "hidden_size": text_width,
        "intermediate_size": 4 * text_width,
        "num_attention_heads": text_heads,
        "num_hidden_layers": size.layers,
        "bos_token_id": size.vocabulary - 2,
        "eos_token_id": size.vocabulary - 1,
        "pad_token_id": size.vocabulary - 1,
    }
    config = CLIPConfig(
        projection_dim=size.projection, vision_config=_image_tower(size), text_config=text
    )
    CLIPModel(config).save_pretrained(folder)
    side = size.image_side
    CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    ).save_pretrained(folder)
    _clip_tokenizer(size).save_pretrained(folder)


def _clip_tokenizer(size: Size) -> CLIPTokenizer:
    """Return a tokenizer that spells each word, with as many ids as the text tower has."""
    bytes_ = sorted(ByteLevel.alphabet())
    symbols = [*bytes_, *(f"{byte}</w>" for byte in bytes_)]
    symbols += [f"<{n}>" for n in range(size.vocabulary - len(symbols) - 2)]
    symbols += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {symbol: i for i, symbol in enumerate(symbols)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def save_random_blip(folder: Path, size: Size, seed: int = 0) -> None:
    """Save a BLIP whose captions mean nothing, but differ from image to image."""
    disable_progress_bar()
    torch.manual_seed(seed)
    tokens = [*_SPECIAL_TOKENS, *(f"w{n}" for n in range(size.vocabulary - len(_SPECIAL_TOKENS)))]
    tokenizer = BertTokenizer(vocab={token: i for i, token in enumerate(tokens)})
    text = {
        "vocab_size": len(tokens) + 2,
        "hidden_size": size.width,
        "encoder_hidden_size": size.width,
        "intermediate_size": 4 * size.width,
        "num_attention_heads": size.heads,
        "num_hidden_layers": size.layers,
        "initializer_range": 0.2 if size == SMALL else 0.02,
        "bos_token_id": len(tokens),
        "sep_token_id": tokens.index("[SEP]"),
        "eos_token_id": tokens.index("[SEP]"),
        "pad_token_id": tokens.index("[PAD]"),
    }
    # BLIP's default spread for the image tower is 1e-10, which leaves it blind.
    vision = _image_tower(size) | {"initializer_range": 0.08}
    config = BlipConfig(
        projection_dim=size.projection,
        image_text_hidden_size=size.projection,
        vision_config=vision,
        text_config=text,
    )
    BlipForConditionalGeneration(config).save_pretrained(folder)
    images = BlipImageProcessorPil(size={"height": size.image_side, "width": size.image_side})
    processor = BlipProcessor(images, tokenizer)
    processor.save_pretrained(folder)


def _image_tower(size: Size) -> dict[str, int | float]:
    return {
        "hidden_size": size.width,
        "intermediate_size": 4 * size.width,
        "num_attention_heads": size.heads,
        "num_hidden_layers": size.layers,
        "image_size": size.image_side,
        "patch_size": size.patch,
    }
