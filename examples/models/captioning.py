"""Train the tiny BLIP: each picture must be given its whole caption, word by word."""

import torch
from transformers import BertTokenizer, BlipForConditionalGeneration

from examples.models.dataset import DrawingSet
from examples.models.networks import ABSENT, HelperHeads, helper_labels
from examples.models.optimizer import MuonAndAdamW, learning_rate
from examples.models.progress import Progress
from examples.models.tiny_tokenizers import caption_start_id

BATCH = 64
PEAK_RATE = 1.5e-3
HELPER_WEIGHT = 0.2


def train_blip(
    blip: BlipForConditionalGeneration,
    helper: HelperHeads,
    drawings: DrawingSet,
    tokenizer: BertTokenizer,
    steps: int,
) -> None:
    """Train in place, from an image tower that was started from CLIP's."""
    captions = [scene.caption for scene in drawings.scenes]
    tokens = tokenizer(captions, padding=True, return_tensors="pt")
    token_ids, mask = tokens.input_ids, tokens.attention_mask
    # Generation starts with [DEC], so training does as well, in the place of [CLS].
    token_ids[:, 0] = caption_start_id(tokenizer)
    targets = token_ids.masked_fill(mask == 0, ABSENT)
    labels = helper_labels(drawings.scenes)
    optimizer = MuonAndAdamW(blip, helper)
    progress = Progress(name="blip", steps=steps)
    blip.train()
    for step in range(steps):
        rows = torch.randint(0, len(drawings), (BATCH,))
        length = int(mask[rows].sum(1).max())
        output = blip(
            pixel_values=drawings.batch(rows),
            input_ids=token_ids[rows, :length],
            attention_mask=mask[rows, :length],
            labels=targets[rows, :length],
        )
        helper_loss = helper.loss(output.last_hidden_state[:, 0], labels[rows])
        torch.autograd.backward(output.loss + HELPER_WEIGHT * helper_loss)
        optimizer.step(learning_rate(PEAK_RATE, step / steps))
        progress.report(step + 1, output.loss.item(), helper_loss.item())
    blip.train(False)
