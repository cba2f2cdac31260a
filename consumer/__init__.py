"""The GPU side: signed image references in, embeddings and captions out, exactly once."""
