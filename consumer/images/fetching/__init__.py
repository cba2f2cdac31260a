"""Processes with the network and no image library: they fetch, count, hash and seal."""
