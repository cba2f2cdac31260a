"""Damage to files: what bit rot, bad writers and people with intent do to them."""

from random import Random

_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutated(random: Random, data: bytes, others: list[bytes]) -> bytes:
    """Return `data` after one to six changes; some take bytes from `others`."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        if not changed:
            break
        random.choice(_CHANGES)(random, changed, random.choice(others))
    return bytes(changed)


def _flip_bits(random: Random, data: bytearray, other: bytes) -> None:
    for _ in range(random.choice((1, 1, 2, 8, 32))):
        data[_place(random, data)] ^= 1 << random.randrange(8)


def _set_number(random: Random, data: bytearray, other: bytes) -> None:
    """Write an extreme number, as lengths, counts and offsets are."""
    width = random.choice((1, 2, 4))
    number = random.choice(_EXTREMES) + random.randint(-2, 2)
    order = random.choice(("little", "big"))
    at = _place(random, data)
    data[at : at + width] = (number % 256**width).to_bytes(width, order)


def _cut(random: Random, data: bytearray, other: bytes) -> None:
    del data[_place(random, data) :]


def _remove(random: Random, data: bytearray, other: bytes) -> None:
    at = _place(random, data)
    del data[at : at + random.choice((1, 2, 4, 16, 64))]


def _repeat(random: Random, data: bytearray, other: bytes) -> None:
    at = _place(random, data)
    part = data[at : at + random.choice((4, 16, 64))]
    data[at:at] = part * random.choice((1, 2, 100))


def _insert(random: Random, data: bytearray, other: bytes) -> None:
    at = _place(random, data)
    data[at:at] = random.randbytes(random.choice((1, 2, 8, 64)))


def _splice(random: Random, data: bytearray, other: bytes) -> None:
    """Go on with another file, from anywhere in it."""
    data[_place(random, data) :] = other[random.randrange(len(other)) :]


def _place(random: Random, data: bytearray) -> int:
    """Return an offset: a third in the first 100 bytes, where headers are, few in the first 12."""
    end = min(len(data), 100) if random.random() < 0.3 else len(data)
    return random.randrange(min(12, end - 1) if random.random() < 0.9 else 0, end)


_CHANGES = (
    _flip_bits,
    _flip_bits,
    _set_number,
    _set_number,
    _cut,
    _remove,
    _repeat,
    _insert,
    _splice,
)
