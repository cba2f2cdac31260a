"""`data:` references, with the limits that keep them small."""

import base64

import pytest

from consumer.errors import Failed
from consumer.images.sources.data import DataSource
from schemas import Code
from tests.fakes import fetched

PAYLOAD = b"\x89PNG and then some"


def _uri(data: bytes, header: str = "data:image/png;base64") -> str:
    return f"{header},{base64.b64encode(data).decode()}"


async def _code(uri: str, *, allowed: int = 1000, max_bytes: int = 1000) -> Code:
    with pytest.raises(Failed) as caught:
        await fetched(DataSource(max_bytes=allowed), uri, max_bytes)
    assert uri.partition(",")[2][:12] not in caught.value.message or "," not in uri
    return caught.value.code


@pytest.mark.parametrize("header", ["data:image/png;base64", "DATA:Image/svg+xml;BASE64"])
@pytest.mark.parametrize("byte_length", [0, 1, 2, 3, 17])
async def test_payload_is_decoded(header: str, byte_length: int) -> None:
    """Every padding works, and the header's case does not matter."""
    data = PAYLOAD[:byte_length]
    assert await fetched(DataSource(max_bytes=17), _uri(data, header), 17) == data


async def test_switched_off_by_zero() -> None:
    """Without a limit above zero no data: URI is read."""
    assert await _code(_uri(PAYLOAD), allowed=0) is Code.FORBIDDEN_SOURCE


@pytest.mark.parametrize(
    "header",
    [
        "data:text/html;base64",
        "data:image/png",
        "data:;base64",
        "data:image/png;charset=x;base64",
        "data:image/png; base64",
        "data:image/png;base64;base64",
        "data: image/png;base64",
        "data:image/;base64",
        "data:image/../png;base64",
        "data:image/png;base64\n",
        "data:\u0131mage/png;base64",
        "data:image/png;ba\u017fe64",
        "data:data:image/png;base64",
        "data://image/png;base64",
        "data:image/" + "p" * 7000,
    ],
)
async def test_other_than_base64_of_an_image_type_is_forbidden(header: str) -> None:
    """Only data:image/...;base64, is a source."""
    assert await _code(_uri(PAYLOAD, header)) is Code.FORBIDDEN_SOURCE
    assert await _code("data:image/png;base64;AAAA") is Code.FORBIDDEN_SOURCE


@pytest.mark.parametrize(
    "payload",
    [
        "QUJD!",
        "QUJD!!!!",
        "QUJD\n\n\n\n",
        "QUI",
        "QUI==",
        "QUJD=",
        "QU JD",
        "QUJD\n",
        "QUI%3D",
        "QU=JD",
        "QUJ\u00e9",
        "Q-_D",
        "=",
        "====",
        "Q===",
        "QQ==QQ==",
        "QQ==\x00",
        "QUJD\x00\x00\x00\x00",
        "\ufeffQUJD",
        "QUJD\u00a0",
        "QR==",
        "QUK=\n",
        "QUL=",
        "data:image/png;base64,QUJD",
        "QUJD,QUJD",
        "QUJD#QUJ",
        "QUJD?x=y",
        "\uff31\uff35\uff2a\uff24",
    ],
)
async def test_malformed_base64_is_no_image(payload: str) -> None:
    """Nothing is repaired or skipped: characters, padding and white space must be right."""
    assert await _code(f"data:image/png;base64,{payload}") is Code.NOT_AN_IMAGE


@pytest.mark.parametrize(("allowed", "max_bytes"), [(18, 1000), (1000, 18)])
async def test_limit_holds_to_the_byte(allowed: int, max_bytes: int) -> None:
    """The smaller of both limits counts decoded bytes; one more is too large."""
    source = DataSource(max_bytes=allowed)
    assert len(await fetched(source, _uri(b"x" * 18), max_bytes)) == 18
    code = await _code(_uri(b"x" * 19), allowed=allowed, max_bytes=max_bytes)
    assert code is Code.IMAGE_TOO_LARGE


async def test_size_is_judged_before_anything_is_decoded() -> None:
    """A payload too large and broken is too large: its text alone says so."""
    assert await _code("data:image/png;base64," + "!" * 10_000) is Code.IMAGE_TOO_LARGE
