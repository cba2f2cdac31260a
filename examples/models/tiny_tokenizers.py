"""Tokenizers of the same classes as the hub's checkpoints, with a vocabulary of a few hundred."""

import itertools
import string

from tokenizers.pre_tokenizers import ByteLevel
from transformers import BertTokenizer, CLIPTokenizer

from examples.models.drawings import words

CLIP_MAX_TOKENS = 32
BLIP_MAX_TOKENS = 64


def clip_tokenizer() -> CLIPTokenizer:
    """Build a byte-level BPE that yields each word of the world as one token.

    Laid out as CLIP's own: bytes, bytes that end a word, merges, and begin and end of text as
    the last two ids, because the text tower pools at the end token's id.
    """
    alphabet = sorted(ByteLevel.alphabet())
    symbols = alphabet + [f"{c}</w>" for c in alphabet]
    merges: list[tuple[str, str]] = []
    for word in words():
        parts = _apply(merges, [*word[:-1], f"{word[-1]}</w>"])
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = _apply(merges, parts)
    symbols += ["".join(merge) for merge in merges]
    symbols += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {symbol: i for i, symbol in enumerate(dict.fromkeys(symbols))}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,  # type: ignore[arg-type]  # annotated as text, taken as pairs
        model_max_length=CLIP_MAX_TOKENS,
    )


def blip_tokenizer() -> BertTokenizer:
    """Build a WordPiece vocabulary: special tokens, single characters, then the world's words."""
    characters = string.ascii_lowercase + string.digits
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *".,!?'-"]
    tokens += [f"##{c}" for c in characters]
    tokens += words()
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return BertTokenizer(vocab=vocabulary, model_max_length=BLIP_MAX_TOKENS)


def caption_start_id(tokenizer: BertTokenizer) -> int:
    """Return the id of [DEC], which begins a caption: beyond the tokenizer's, as in the hub's."""
    return len(tokenizer)


def _apply(merges: list[tuple[str, str]], parts: list[str]) -> list[str]:
    """Apply the merges in order of rank, as a BPE tokenizer does, until none fits."""
    for rank in merges:
        for i, pair in enumerate(itertools.pairwise(parts)):
            if pair == rank:
                merged = [*parts[:i], "".join(rank), *parts[i + 2 :]]
                return _apply(merges, merged)
    return parts
