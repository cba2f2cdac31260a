"""A checkpoint's tokenizer, checked against its model."""

from typing import Any, Final

from transformers import AutoTokenizer

from consumer.inference.errors import ModelUnavailable
from consumer.inference.models.checkpoint import Checkpoint, unreadable

# A model rounds its vocabulary up, by 2 (BLIP) to 28 (T5) of some 30,000 words.
_LEAST_SHARE: Final = 0.9


def open_tokenizer(checkpoint: Checkpoint, vocabulary: int) -> Any:
    """Return the tokenizer of a model that has `vocabulary` words.

    Raises:
        ModelUnavailable: it cannot be read, or is another model's: its ids would mean other words,
            or crash a GPU's process.
    """
    with unreadable(checkpoint.folder):
        tokenizer: Any = AutoTokenizer.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=False
        )
        highest = max(tokenizer.get_vocab().values(), default=-1)
    if not _LEAST_SHARE * vocabulary <= highest + 1 <= vocabulary:
        raise ModelUnavailable(
            f"{checkpoint.identity.model}: its tokenizer has ids up to {highest}, its model "
            f"{vocabulary} words; download or save the checkpoint again"
        )
    return tokenizer
