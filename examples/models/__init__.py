"""Tiny CLIP and BLIP checkpoints for tests and demonstrations, and the code that makes them."""
