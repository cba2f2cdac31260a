"""From the bytes of an image to the small uint8 arrays that the models take."""
