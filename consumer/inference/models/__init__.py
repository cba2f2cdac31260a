"""CLIP and BLIP: the only place that knows torch and transformers."""
