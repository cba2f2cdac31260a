"""Train the tiny CLIP: each picture must find its own text in the batch, and the reverse.

Chance alone rarely puts `three pink stars` and `four pink stars` into one batch, so each picture is
also shown a text that differs from its own in one word.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel, CLIPTokenizer

from examples.models.dataset import DrawingSet
from examples.models.networks import HelperHeads, helper_labels
from examples.models.optimizer import MuonAndAdamW, learning_rate
from examples.models.progress import Progress

BATCH = 128
PEAK_RATE = 1.5e-3
WHOLE_CAPTION_SHARE = 0.55
HELPER_WEIGHT = 0.5
MAX_LOGIT_SCALE = math.log(100)
# Finite, because a row of nothing but minus infinity would give NaN.
MASKED = -1e4


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionTable:
    """Every caption once, tokenized.

    `true_rows` holds the captions that are true of each picture, `neighbours` the captions that
    differ from each caption in one word. Rows are filled up with -1.
    """

    token_ids: Tensor
    attention_mask: Tensor
    true_rows: Tensor
    neighbours: Tensor

    @classmethod
    def of(cls, drawings: DrawingSet, tokenizer: CLIPTokenizer) -> "CaptionTable":
        """Tokenize all true captions of the drawings, whole captions and shorter ones."""
        per_picture = [scene.true_captions() for scene in drawings.scenes]
        captions = sorted({caption for captions in per_picture for caption in captions})
        row = {caption: i for i, caption in enumerate(captions)}
        tokens = tokenizer(captions, padding=True, return_tensors="pt")
        return cls(
            token_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            true_rows=_padded([[row[caption] for caption in true] for true in per_picture]),
            neighbours=_padded(_one_word_apart(captions)),
        )

    def choose(self, pictures: Tensor) -> Tensor:
        """Pick one true caption a picture, the whole one more often than not."""
        rows = self.true_rows[pictures]
        last = (rows >= 0).sum(1, keepdim=True) - 1
        whole = torch.rand(len(pictures)) < WHOLE_CAPTION_SHARE
        return torch.where(whole, rows.gather(1, last)[:, 0], _any_of(rows))

    def choose_neighbours(self, chosen: Tensor) -> Tensor:
        """Pick for each caption another one that differs from it in one word."""
        return _any_of(self.neighbours[chosen])

    def other_truths(self, pictures: Tensor, texts: Tensor) -> Tensor:
        """Mark text j where it is true of picture i too: it must not be pushed away from it.

        The first texts are the pictures' own, in the same order.
        """
        true = (self.true_rows[pictures][:, None, :] == texts[None, :, None]).any(-1)
        return true.fill_diagonal_(False)

    def embed(self, clip: CLIPModel, texts: Tensor) -> Tensor:
        """Embed captions, each different one once."""
        rows, inverse = torch.unique(texts, return_inverse=True)
        length = int(self.attention_mask[rows].sum(1).max())
        output = clip.get_text_features(
            input_ids=self.token_ids[rows, :length],
            attention_mask=self.attention_mask[rows, :length],
        )
        embeddings: Tensor = output.pooler_output[inverse]
        return embeddings


def train_clip(
    clip: CLIPModel, helper: HelperHeads, drawings: DrawingSet, tokenizer: CLIPTokenizer, steps: int
) -> None:
    """Train in place, helper heads included."""
    table = CaptionTable.of(drawings, tokenizer)
    labels = helper_labels(drawings.scenes)
    optimizer = MuonAndAdamW(clip, helper)
    progress = Progress(name="clip", steps=steps)
    clip.train()
    for step in range(steps):
        pictures = torch.randint(0, len(drawings), (BATCH,))
        chosen = table.choose(pictures)
        texts = torch.cat([chosen, table.choose_neighbours(chosen)])
        pooled = clip.vision_model(pixel_values=drawings.batch(pictures)).pooler_output
        logits = clip.logit_scale.exp() * _cosines(
            clip.visual_projection(pooled), table.embed(clip, texts)
        )
        loss = _contrastive_loss(logits.masked_fill(table.other_truths(pictures, texts), MASKED))
        helper_loss = helper.loss(pooled, labels[pictures])
        torch.autograd.backward(loss + HELPER_WEIGHT * helper_loss)
        optimizer.step(learning_rate(PEAK_RATE, step / steps))
        with torch.no_grad():
            clip.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        progress.report(step + 1, loss.item(), helper_loss.item())
    clip.train(False)


def _cosines(images: Tensor, texts: Tensor) -> Tensor:
    return functional.normalize(images, dim=-1) @ functional.normalize(texts, dim=-1).T


def _contrastive_loss(logits: Tensor) -> Tensor:
    """Score pictures against all texts, and the pictures' own texts against the pictures."""
    own = torch.arange(len(logits))
    to_text = functional.cross_entropy(logits, own)
    to_picture = functional.cross_entropy(logits[:, : len(logits)].T, own)
    return (to_text + to_picture) / 2


def _one_word_apart(captions: Sequence[str]) -> list[list[int]]:
    """List for each caption the rows of the captions of the same length with one other word."""
    # "an" counts as "a": otherwise orange things would have no neighbour of another colour.
    split = [["a" if word == "an" else word for word in caption.split()] for caption in captions]
    alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, words in enumerate(split):
        for key in _gapped(words):
            alike[key].append(row)
    return [
        [other for key in _gapped(words) for other in alike[key] if other != row]
        for row, words in enumerate(split)
    ]


def _gapped(words: list[str]) -> list[tuple[str, ...]]:
    return [(*words[:i], "", *words[i + 1 :]) for i in range(len(words))]


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    table = torch.full((len(rows), max(map(len, rows))), -1)
    for i, row in enumerate(rows):
        table[i, : len(row)] = torch.tensor(row)
    return table


def _any_of(rows: Tensor) -> Tensor:
    """Pick one entry of each row at random, leaving out the -1 at its end."""
    column = (torch.rand(len(rows)) * (rows >= 0).sum(1)).long()
    return rows.gather(1, column[:, None])[:, 0]
