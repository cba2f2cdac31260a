"""The device and its one thread: what runs next, which models are on it."""
