"""An image reference to pixels, within limits: fetch, retry, decode."""
