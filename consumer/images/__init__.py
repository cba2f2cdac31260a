"""Turns an image reference into pixels, within limits: fetch, retry, decode."""
