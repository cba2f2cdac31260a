"""CLIP and BLIP: the only place that imports torch and transformers."""
