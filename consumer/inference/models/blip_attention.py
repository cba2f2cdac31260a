"""BLIP's attention by torch's fused kernel, which transformers' own BLIP does not call.

The equation is the same (softmax(QK^T / sqrt(d)) V, Vaswani et al. 2017); the scores of all heads
are never written to memory.
"""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import EncoderDecoderCache
from transformers.models.blip.modeling_blip import BlipAttention
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention


class FusedVisionAttention(BlipAttention):
    """Attention of the image tower; returns no attention weights, for no caller reads them."""

    def forward(  # type: ignore[override]  # no weights
        self, hidden_states: torch.Tensor, **_: Any
    ) -> tuple[torch.Tensor, None]:
        """Return the layer's output, shape (images, patches, width)."""
        images, patches, width = hidden_states.shape
        heads = self.qkv(hidden_states).view(images, patches, 3, self.num_heads, self.head_dim)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        context = scaled_dot_product_attention(query, key, value, scale=self.scale)
        return self.projection(context.transpose(1, 2).reshape(images, patches, width)), None


class FusedTextAttention(BlipTextSelfAttention):
    """Attention of the decoder: to the words so far, and to the image."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        cache: EncoderDecoderCache | None = None,
        past_key_values: EncoderDecoderCache | None = None,  # its name before transformers 5.24
    ) -> tuple[torch.Tensor, None]:
        """Return the context, shape (images, words, width)."""
        cache = past_key_values if cache is None else cache
        query = self._heads(self.query(hidden_states))
        if encoder_hidden_states is None:
            key, value = self._keys_and_values(hidden_states)
            if cache is not None:
                key, value = cache.self_attention_cache.update(key, value, self.layer_idx)
            mask = attention_mask
        else:
            key, value = self._image_keys_and_values(encoder_hidden_states, cache)
            mask = encoder_attention_mask
        context = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return context.transpose(1, 2).flatten(2), None

    def _image_keys_and_values(
        self, states: torch.Tensor, cache: EncoderDecoderCache | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of the image; they are the same for every word."""
        if cache is None:
            return self._keys_and_values(states)
        kept = cache.cross_attention_cache
        if not cache.is_updated.get(self.layer_idx):
            cache.is_updated[self.layer_idx] = True
            return kept.update(*self._keys_and_values(states), self.layer_idx)
        layer = kept.layers[self.layer_idx]
        return layer.keys, layer.values

    def _keys_and_values(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._heads(self.key(states)), self._heads(self.value(states))

    def _heads(self, states: torch.Tensor) -> torch.Tensor:
        heads = states.view(*states.shape[:-1], -1, self.attention_head_size)
        return heads.transpose(1, 2)


def fuse_attention(model: torch.nn.Module) -> None:
    """Let every attention of a BLIP compute by the fused kernel, with its present weights."""
    for module in model.modules():
        # Only the class itself: a subclass may compute something else.
        if type(module) is BlipAttention:
            module.__class__ = FusedVisionAttention
        elif type(module) is BlipTextSelfAttention:
            module.__class__ = FusedTextAttention
