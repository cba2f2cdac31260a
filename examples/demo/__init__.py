"""The demo: the real consumer on real files, every result shown, everything down again."""
