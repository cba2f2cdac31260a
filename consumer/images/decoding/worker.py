"""`python -m consumer.images.decoding.worker OPTIONS`: decode what standard input's socket brings.

A process of its own for the images of strangers: no secret is in its environment, no torch in its
memory. It ends when the socket does.
"""

import mmap
import os
import socket
import sys
from typing import Final

from consumer.errors import Failed
from consumer.images.decoding.channel import (
    ANSWER,
    ANSWER_JSON,
    OPTIONS_JSON,
    QUESTION,
    TARGETS_JSON,
    Picture,
    Verdict,
    WorkerOptions,
)
from consumer.images.decoding.confinement import confine, limit_cpu
from consumer.images.decoding.image import decode, prepare
from consumer.images.decoding.limits import Format
from schemas import Code

# What the thirstiest takes, a turned WebP with alpha: five pictures of four bytes a pixel.
_BYTES_PER_PIXEL: Final = 20


def main(options: WorkerOptions) -> None:
    """Say that we are ready, or what is wrong, and answer until nobody asks any longer."""
    channel = socket.socket(fileno=0)
    fault = _begin(options)
    channel.sendall(ANSWER.pack(len(fault)) + fault)
    if not fault:
        while _answered(channel, options):
            pass


def _begin(options: WorkerOptions) -> bytes:
    limits = options.limits
    try:
        prepare(limits)
        os.dup2(1, 2)  # to nowhere: what libraries say of a stranger's file is not for the log
        # libheif decodes in a thread of its own, even if it is the only one.
        confine(options.memory_bytes, threads=Format.HEIC in limits.formats)
    except ImportError as exc:
        fault = (
            f"DECODE_FORMATS lists a format that needs {exc.name}: install this project with the "
            "extra `formats` (build its image with EXTRAS=consumer,formats), or list less"
        )
    except OSError as exc:
        fault = f"its process cannot give up its rights: {exc}"
    else:
        fault = _lack_of_memory(options)
    return fault.encode()


def _lack_of_memory(options: WorkerOptions) -> str:
    try:
        mmap.mmap(-1, _BYTES_PER_PIXEL * options.limits.max_pixels).close()
    except OSError:
        return (
            f"DECODE_MEMORY_BYTES={options.memory_bytes} does not do for MAX_IMAGE_PIXELS="
            f"{options.limits.max_pixels}: more of the one, or less of the other"
        )
    return ""


def _answered(channel: socket.socket, options: WorkerOptions) -> bool:
    head = channel.recv(QUESTION.size, socket.MSG_WAITALL)
    if len(head) < QUESTION.size:
        return False
    limit_cpu(options.cpu_seconds)
    targets_length, byte_length = QUESTION.unpack(head)
    targets = TARGETS_JSON.validate_json(channel.recv(targets_length, socket.MSG_WAITALL))
    answer: Picture | Verdict
    pixels: list[memoryview] = []
    data = channel.recv(byte_length, socket.MSG_WAITALL)
    try:
        image = decode(data, targets, options.limits)
    except Failed as failed:
        answer = Verdict(code=failed.code, message=failed.message)
    except Exception as exc:  # noqa: BLE001 - a bug that an image finds must cost that image alone
        answer = Verdict(
            code=Code.DECODER_CRASHED, message=f"the decoder failed with {type(exc).__name__}"
        )
    else:
        answer = Picture(width=image.width, height=image.height, format=image.format)
        pixels = [array.data for array in image.pixels.values()]
    text = ANSWER_JSON.dump_json(answer)
    channel.sendall(ANSWER.pack(len(text)) + text)
    for view in pixels:
        channel.sendall(view)
    return True


if __name__ == "__main__":
    main(OPTIONS_JSON.validate_json(sys.argv[1]))
