"""Small checkpoints with random weights of the other model types, saved by transformers."""

from pathlib import Path
from typing import Any

import torch
from sentencepiece import SentencePieceTrainer
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    GitConfig,
    GitForCausalLM,
    MetaClip2Config,
    MetaClip2Model,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    SiglipTokenizer,
    XLMRobertaTokenizer,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

SIDE = 32
_VISION: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "image_size": SIDE,
    "patch_size": 8,
}
_TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
}


def byte_tokenizer(**marks: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer that spells bytes, after its marks; the mark `eos_token` ends a text."""
    names = list(dict.fromkeys(marks.values()))
    vocabulary = {symbol: i for i, symbol in enumerate(names)}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[byte] = len(vocabulary)
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if "eos_token" in marks:
        end = marks["eos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {end}", special_tokens=[(end, vocabulary[end])]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks)


def save_siglip_2(folder: Path) -> None:
    """Save a SigLIP with a tokenizer like SigLIP 2's: bytes, an end, padding."""
    _save_siglip(folder, byte_tokenizer(pad_token="<pad>", eos_token="<eos>"))


def save_siglip(folder: Path) -> None:
    """Save a SigLIP with a tokenizer of the first ones' class, which needs sentencepiece."""
    words = "a red car two green stars on a black background three blue squares x"
    SentencePieceTrainer.train(
        sentence_iterator=iter([words] * 10),
        model_prefix=str(folder / "spiece"),
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    _save_siglip(folder, SiglipTokenizer(str(folder / "spiece.model")))


def _save_siglip(folder: Path, tokenizer: Any) -> None:
    torch.manual_seed(0)
    text = _TEXT | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 64,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "projection_size": 64,
    }
    SiglipModel(SiglipConfig(text_config=text, vision_config=_VISION)).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_metaclip_2(folder: Path) -> None:
    """Save a MetaCLIP 2 with a tokenizer of XLM-R's class."""
    torch.manual_seed(0)
    marks = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = [f"{space}{letter}" for space in ("", "▁") for letter in "abcdefghijklmnopqrstuvwxyz"]
    pieces = [*((mark, 0.0) for mark in marks), ("▁", -2.0), *((piece, -3.0) for piece in letters)]
    tokenizer = XLMRobertaTokenizer(vocab=pieces, unk_id=3)
    text = _TEXT | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 40,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }
    config = MetaClip2Config(text_config=text, vision_config=_VISION, projection_dim=48)
    MetaClip2Model(config).save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_blip_2(folder: Path) -> None:
    """Save a BLIP-2 whose language model is an OPT."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer(
        bos_token="</s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer._tokenizer.post_processor = None
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    text = _TEXT | {
        "model_type": "opt",
        "ffn_dim": 128,
        "word_embed_proj_dim": 64,
        "max_position_embeddings": 128,
        "vocab_size": len(tokenizer),
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 1,
        "init_std": 0.5,
    }
    qformer = _TEXT | {"encoder_hidden_size": 64, "vocab_size": 10}
    config = Blip2Config(
        vision_config=_VISION | {"initializer_range": 0.08},
        qformer_config=qformer,
        text_config=text,
        num_query_tokens=4,
        image_token_index=len(tokenizer) - 1,
    )
    Blip2ForConditionalGeneration(config).save_pretrained(folder)
    BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_git(folder: Path) -> None:
    """Save a GIT."""
    torch.manual_seed(0)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(100))]
    tokenizer = BertTokenizer(vocab={token: i for i, token in enumerate(tokens)})
    config = GitConfig(
        **_TEXT,
        vision_config=_VISION,
        vocab_size=len(tokens),
        max_position_embeddings=64,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
        initializer_range=0.3,
    )
    GitForCausalLM(config).save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
