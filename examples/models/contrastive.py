"""Train the tiny CLIP: each picture must find its own text in the batch, and the reverse."""

import math
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
    """Every caption once, tokenized, and the rows that are true of each picture (-1: no more)."""

    token_ids: Tensor
    attention_mask: Tensor
    true_rows: Tensor

    @classmethod
    def of(cls, drawings: DrawingSet, tokenizer: CLIPTokenizer) -> "CaptionTable":
        """Tokenize all true captions of the drawings, whole captions and shorter ones."""
        per_picture = [scene.true_captions() for scene in drawings.scenes]
        captions = sorted({caption for captions in per_picture for caption in captions})
        row = {caption: i for i, caption in enumerate(captions)}
        true_rows = torch.full((len(drawings), max(map(len, per_picture))), -1)
        for picture, true in enumerate(per_picture):
            true_rows[picture, : len(true)] = torch.tensor([row[caption] for caption in true])
        tokens = tokenizer(captions, padding=True, return_tensors="pt")
        return cls(
            token_ids=tokens.input_ids, attention_mask=tokens.attention_mask, true_rows=true_rows
        )

    def choose(self, pictures: Tensor) -> Tensor:
        """Pick one true caption a picture, the whole one more often than not."""
        counts = (self.true_rows[pictures] >= 0).sum(1)
        any_of_them = (torch.rand(len(pictures)) * counts).long()
        whole = torch.rand(len(pictures)) < WHOLE_CAPTION_SHARE
        return self.true_rows[pictures, torch.where(whole, counts - 1, any_of_them)]

    def other_truths(self, pictures: Tensor, chosen: Tensor) -> Tensor:
        """Mark text j where it is true of picture i too: it must not be pushed away from it."""
        true = (self.true_rows[pictures][:, None, :] == chosen[None, :, None]).any(-1)
        return true.fill_diagonal_(False)

    def embed(self, clip: CLIPModel, chosen: Tensor) -> Tensor:
        """Embed the chosen captions, each different one once."""
        rows, inverse = torch.unique(chosen, return_inverse=True)
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
    """Train in place; `helper` comes out trained as well and serves BLIP's start."""
    table = CaptionTable.of(drawings, tokenizer)
    labels = helper_labels(drawings.scenes)
    optimizer = MuonAndAdamW(clip, helper)
    progress = Progress(name="clip", steps=steps)
    clip.train()
    for step in range(steps):
        pictures = torch.randint(0, len(drawings), (BATCH,))
        chosen = table.choose(pictures)
        pooled = clip.vision_model(pixel_values=drawings.batch(pictures)).pooler_output
        logits = clip.logit_scale.exp() * _cosines(
            clip.visual_projection(pooled), table.embed(clip, chosen)
        )
        loss = _contrastive_loss(logits.masked_fill(table.other_truths(pictures, chosen), MASKED))
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
    own = torch.arange(len(logits))
    both = functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)
    return both / 2
