"""Turns the bytes of an image into the small uint8 arrays that the models take."""
