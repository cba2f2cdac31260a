"""`python -m consumer.images.decoding.worker OPTIONS`: decode what standard input's socket brings.

The process has no secret in its environment and no torch in its memory. Standard output is its
segment of memory. Each image comes as a descriptor, which is closed before the next one comes. The
process ends with the socket.
"""

import mmap
import os
import select
import socket
import sys
from typing import Final

from consumer.errors import Failed
from consumer.images.decoding.channel import (
    ANSWER,
    ANSWER_JSON,
    OPTIONS_JSON,
    QUESTION,
    STARTED_JSON,
    TARGETS_JSON,
    Picture,
    Started,
    Verdict,
    WorkerOptions,
)
from consumer.images.decoding.confinement import confine, yield_to_others
from consumer.images.decoding.image import decode, prepare
from consumer.images.decoding.limits import Format
from consumer.images.decoding.segment import Segment
from schemas import Code

# What a JPEG takes, which may have all the pixels that are allowed; others: `DecodeLimits.pixels`.
_BYTES_PER_PIXEL: Final = 2
_KEEP_MS: Final = 5  # milliseconds: long enough for the consumer to close the image first


def main(options: WorkerOptions) -> None:
    """Report readiness or a fault, then decode until the socket ends."""
    channel, segment = socket.socket(fileno=0), Segment(1)
    started = _begin(options)
    _send(channel, STARTED_JSON.dump_json(started))
    if not started.fault:
        while _answered(channel, segment, options):
            pass


def _begin(options: WorkerOptions) -> Started:
    limits = options.limits
    lacks: tuple[str, ...] = ()
    try:
        prepare(limits)
        yield_to_others(options.niceness)
        _silence()
        # libheif decodes in a thread of its own, even if it is the only one.
        lacks = confine(limits.memory_bytes, threads=Format.HEIC in limits.formats)
    except ImportError as exc:
        fault = (
            f"DECODE_FORMATS lists a format that needs {exc.name}: install this project with the "
            "extra `formats` (build its image with EXTRAS=consumer,formats), or list less"
        )
    except OSError as exc:
        fault = f"its process cannot give up its rights: {exc}"
    else:
        fault = _lack_of_memory(options)
    return Started(fault=fault, lacks=lacks)


def _silence() -> None:
    """Close all but the channel: libraries must not write about a file into the log."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.closerange(
        3, 64
    )  # the descriptor of /dev/null, and the one that `mmap` keeps of the segment


def _lack_of_memory(options: WorkerOptions) -> str:
    try:
        mmap.mmap(-1, _BYTES_PER_PIXEL * options.limits.max_pixels).close()
    except OSError:
        return (
            f"DECODE_MEMORY_BYTES={options.limits.memory_bytes} does not do for MAX_IMAGE_PIXELS="
            f"{options.limits.max_pixels}: more of the one, or less of the other"
        )
    return ""


def _answered(channel: socket.socket, segment: Segment, options: WorkerOptions) -> bool:
    head, descriptors, _, _ = socket.recv_fds(channel, QUESTION.size, 1)
    if len(head) < QUESTION.size or not descriptors:
        return False
    targets_length, byte_length = QUESTION.unpack(head)
    targets = TARGETS_JSON.validate_json(channel.recv(targets_length, socket.MSG_WAITALL))
    answer: Picture | Verdict
    try:
        image = decode(_content(descriptors[0], byte_length), targets, options.limits)
    except Failed as failed:
        answer = Verdict(code=failed.code, message=failed.message)
    except Exception as exc:  # noqa: BLE001 - a bug that an image finds must cost that image alone
        answer = Verdict(
            code=Code.DECODER_CRASHED, message=f"the decoder failed with {type(exc).__name__}"
        )
    else:
        answer = Picture(width=image.width, height=image.height, format=image.format)
        segment.put_pixels(image.pixels)
    _send(channel, ANSWER_JSON.dump_json(answer))
    _close_last(descriptors[0], channel)
    return True


def _content(descriptor: int, byte_length: int) -> bytes:
    data = os.pread(descriptor, byte_length, 0)
    if len(data) < byte_length:  # it is sealed, so only where nothing can be
        raise EOFError
    return data


def _close_last(descriptor: int, channel: socket.socket) -> None:
    """Close an image's descriptor, whose number the next one gets, before that comes.

    Whoever closes it last frees its memory, 0.06 ms for 440 KB. The consumer closes its own before
    it asks again: its one process has less time than these.
    """
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.poll(_KEEP_MS)
    os.close(descriptor)


def _send(channel: socket.socket, text: bytes) -> None:
    channel.sendall(ANSWER.pack(len(text)) + text)


if __name__ == "__main__":
    main(OPTIONS_JSON.validate_json(sys.argv[1]))
