"""An image in memory of its own: nobody changes it, and nothing else passes for one."""

import fcntl
import hashlib
import mmap
import os

import pytest

from consumer.images.sealed import SealedImage
from tests import pictures
from tests.fakes import content_of


def test_image_knows_its_length_its_digest_and_what_decoding_takes() -> None:
    """All that the consumer's own process needs to know of it; who fetched it has looked."""
    data = pictures.encoded(pictures.drawing(), "PNG")
    image = SealedImage.of(data, 0.5)
    assert image.byte_length == len(data)
    assert image.sha256 == hashlib.sha256(data).hexdigest()
    assert image.decode_seconds == 0.5
    assert content_of(image) == data


def test_nobody_changes_it() -> None:
    """Neither whoever made it, nor whoever got it: not its bytes, and not its length."""
    with SealedImage.of(b"cat") as image:
        for change in (
            lambda: os.pwrite(image.descriptor, b"dog", 0),
            lambda: os.truncate(image.descriptor, 1),
            lambda: os.truncate(image.descriptor, 4),
            lambda: mmap.mmap(image.descriptor, 3),
        ):
            with pytest.raises(OSError, match="not permitted"):
                change()
        assert os.pread(image.descriptor, 4, 0) == b"cat"


def test_descriptor_that_another_process_sent_is_sealed_or_refused() -> None:
    """Of what could change under a decoder, or hold it up, nothing is taken."""
    sealed = SealedImage.of(b"cat")
    taken = SealedImage.received(os.dup(sealed.descriptor), sealed.sha256, 0.5)
    assert (taken.byte_length, taken.decode_seconds) == (3, 0.5)
    assert content_of(taken) == content_of(sealed)
    end, other = os.pipe()
    memory = os.memfd_create("open", os.MFD_ALLOW_SEALING)
    for descriptor in (end, other, memory):
        with pytest.raises(ValueError, match="not"):
            SealedImage.received(descriptor, "0" * 64, 0.0)
        os.close(descriptor)


def test_memory_that_may_not_be_run_either_is_taken() -> None:
    """`vm.memfd_noexec` seals every memory file that way."""
    no_exec = 0x8  # MFD_NOEXEC_SEAL, of Linux 6.3
    try:
        descriptor = os.memfd_create("image", os.MFD_ALLOW_SEALING | no_exec)
    except OSError:
        pytest.skip("this kernel knows no MFD_NOEXEC_SEAL")
    os.write(descriptor, b"cat")
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    assert content_of(SealedImage.received(descriptor, "0" * 64, 0.0)) == b"cat"
