"""Make both tiny checkpoints from nothing but a seed: `python -m examples.models.train`.

Draws the pictures, trains CLIP, starts BLIP's image tower from it, trains BLIP and saves both.
About a quarter of an hour on two idle cores. Steps are counted, not minutes, so that the seed means
something. Where the cores are shared, `OMP_WAIT_POLICY=passive` keeps a thread that waits from
holding up the one it waits for.
"""

import argparse
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
from examples.models.dataset import IMAGE_SIDE, DrawingSet, draw_set
from examples.models.networks import HelperHeads, build_blip, build_clip, start_from_clip
from examples.models.tiny_tokenizers import blip_tokenizer, caption_start_id, clip_tokenizer

SEED = 1
HERE = Path(__file__).parent
MAX_CAPTION_TOKENS = 20


def main() -> None:
    """Train and save both checkpoints."""
    options = _options()
    drawings = draw_set(SEED, options.pictures)
    print(f"drew {len(drawings)} pictures", flush=True)
    torch.set_num_threads(options.threads)
    if options.only != "blip":
        make_clip(drawings, options.clip_steps, options.output / "tiny-clip")
    if options.only != "clip":
        make_blip(
            drawings, options.blip_steps, options.output / "tiny-blip", options.output / "tiny-clip"
        )


def make_clip(drawings: DrawingSet, steps: int, folder: Path) -> None:
    """Train CLIP from nothing and save it."""
    torch.manual_seed(SEED)
    tokenizer = clip_tokenizer()
    clip = build_clip(tokenizer)
    train_clip(clip, HelperHeads(), drawings, tokenizer, steps)
    save_clip(clip, tokenizer, folder)


def make_blip(drawings: DrawingSet, steps: int, folder: Path, clip_folder: Path) -> None:
    """Train BLIP, with its image tower started from the saved CLIP's, and save it."""
    torch.manual_seed(SEED)
    tokenizer = blip_tokenizer()
    blip = build_blip(tokenizer)
    clip = CLIPModel.from_pretrained(clip_folder)
    start_from_clip(blip, clip, drawings.batch(torch.arange(64)))
    train_blip(blip, HelperHeads(), drawings, tokenizer, steps)
    save_blip(blip, tokenizer, folder)


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
    parser.add_argument("--clip-steps", type=int, default=1_000)
    parser.add_argument("--blip-steps", type=int, default=2_200)
    parser.add_argument("--only", choices=("clip", "blip"), help="make one, keep the other")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
