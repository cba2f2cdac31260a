"""Processes that have the network and no image library: they fetch, count, hash and seal."""
