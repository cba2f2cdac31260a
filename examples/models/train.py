"""Make both tiny checkpoints from nothing but a seed: `python -m examples.models.train`.

Draws the pictures, trains CLIP, starts BLIP's image tower from it, trains BLIP and saves both.
About a quarter of an hour on two cores. Steps are counted, not minutes, so that the seed means
something.
"""

import argparse
import time
from pathlib import Path

import torch
from transformers import (
    BertTokenizer,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    GenerationConfig,
)

from examples.models.captioning import train_blip
from examples.models.contrastive import train_clip
from examples.models.dataset import IMAGE_SIDE, draw_set
from examples.models.networks import HelperHeads, build_blip, build_clip, start_from_clip
from examples.models.tiny_tokenizers import blip_tokenizer, caption_start_id, clip_tokenizer

SEED = 1
HERE = Path(__file__).parent
MAX_CAPTION_TOKENS = 20


def main() -> None:
    """Train and save both checkpoints."""
    options = _options()
    started = time.monotonic()
    drawings = draw_set(SEED, options.pictures)
    print(f"drew {len(drawings)} pictures, seconds {time.monotonic() - started:.0f}", flush=True)
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)

    helper = HelperHeads()
    words = clip_tokenizer()
    clip = build_clip(words)
    train_clip(clip, helper, drawings, words, options.clip_steps)
    save_clip(clip, words, options.output / "tiny-clip")

    pieces = blip_tokenizer()
    blip = build_blip(pieces)
    start_from_clip(blip, clip, drawings.batch(torch.arange(64)))
    train_blip(blip, helper, drawings, pieces, options.blip_steps)
    save_blip(blip, pieces, options.output / "tiny-blip")
    print(f"done, seconds {time.monotonic() - started:.0f}", flush=True)


def save_clip(clip: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Save the model as float32, the dtype it serves in, with its processor."""
    crop = {"height": IMAGE_SIDE, "width": IMAGE_SIDE}
    images = CLIPImageProcessor(size={"shortest_edge": IMAGE_SIDE}, crop_size=crop)
    clip.save_pretrained(folder)
    processor = CLIPProcessor(images, tokenizer)  # type: ignore[no-untyped-call]
    processor.save_pretrained(folder)


def save_blip(blip: BlipForConditionalGeneration, tokenizer: BertTokenizer, folder: Path) -> None:
    """Save the model as float32, with its processor and how captions begin and end."""
    blip.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=caption_start_id(tokenizer),
        eos_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=MAX_CAPTION_TOKENS,
    )
    images = BlipImageProcessor(size={"height": IMAGE_SIDE, "width": IMAGE_SIDE})
    blip.save_pretrained(folder)
    processor = BlipProcessor(images, tokenizer)  # type: ignore[no-untyped-call]
    processor.save_pretrained(folder)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=HERE)
    parser.add_argument("--pictures", type=int, default=60_000)
    parser.add_argument("--clip-steps", type=int, default=1_400)
    parser.add_argument("--blip-steps", type=int, default=3_000)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
