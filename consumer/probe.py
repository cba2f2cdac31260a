"""Runs one picture and one text through decoder and models, before the first record.

Files of a checkpoint can each be valid and still not work together.
"""

import base64
from collections.abc import Mapping
from typing import Final

from consumer.errors import Failed
from consumer.images.decoding.pool import Decoder
from consumer.images.sealed import SealedImage
from consumer.inference.engine import Engine
from consumer.pixels import Resize
from imagelane.exits import ExitCode, FatalError
from schemas import Task

# A red disc on white, 96 x 72, as PNG, which every decoder has.
PICTURE: Final = base64.b64decode(
    b"iVBORw0KGgoAAAANSUhEUgAAAGAAAABIAQMAAAAzqWIgAAAABlBMVEX////cHigwpYgPAAAAm0lEQVR42tWSMQ6D"
    b"MAxFXwxqGTlAB47So3G0jD0GR+jYIcId7BiqombpgiVH+vb395cVOG90KwACwC3lraP6ik6CPsAFugADMFcwAvcK"
    b"Jk/Bq+OmbNqyNyK2xhZJ7coR7QP07q9BG8Cc/qb9DwBcVVW1OVMA2rQVf8TplMOZGYjzZuBZweIpeDXvnYZKUi2h"
    b"pu7P9kw8vv7OaeINkrEnkB+7gL0AAAAASUVORK5CYII="
)
TEXT: Final = "a red circle on a white background"


async def probe(engine: Engine, decoder: Decoder, resizes: Mapping[Task, Resize]) -> str:
    """Run every model once, before the engine runs, and return a line about the outputs.

    Raises:
        FatalError: the decoder or a model fails.
    """
    try:
        with SealedImage.of(PICTURE) as image:
            decoded = await decoder.decode(image, resizes)
    except Failed as failed:
        raise FatalError(ExitCode.BUG, f"decoder: a sound picture fails: {failed}") from failed
    numbers, caption = await engine.probe(decoded.pixels, TEXT)
    said = "there was no room for a caption" if caption is None else f"captioned {caption!r}"
    return f"a picture was decoded, embedded ({numbers} numbers), {said}"
