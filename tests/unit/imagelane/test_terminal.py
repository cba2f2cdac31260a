"""What others wrote reaches a terminal or a line without controls, and says the same."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagelane.terminal import json_line, printable

CONTROLS = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
]
texts = st.text(st.sampled_from(CONTROLS) | st.characters(), max_size=30)


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_no_control_is_printed(control: str) -> None:
    """Neither as text nor within JSON."""
    assert printable(f"a{control}b") == "a\N{REPLACEMENT CHARACTER}b"
    assert control not in json_line(json.dumps({"a": f"b{control}"}, ensure_ascii=False))


@given(texts)
def test_what_is_printable_is_unchanged(text: str) -> None:
    """As many characters come out as went in, and the visible ones are the same."""
    shown = printable(text)

    assert shown.isprintable()
    assert [s for s, t in zip(shown, text, strict=True) if t.isprintable()] == [
        t for t in text if t.isprintable()
    ]


@given(st.dictionaries(texts, texts | st.integers() | st.lists(texts)), st.none() | st.just(1))
def test_a_line_of_json_means_the_same(members: dict[str, object], indent: int | None) -> None:
    """Whatever white space and characters it had."""
    document = json.dumps(members, ensure_ascii=False, indent=indent)

    line = json_line(document)

    assert line.isprintable()
    assert json.loads(line) == members


def test_numbers_and_escapes_stay_as_sent() -> None:
    """Long numbers would lose digits if they were parsed."""
    document = '{"n": 1.50000000000000000000001e2,\n\t"e": "\\u00e9\\/"}'

    assert json_line(document) == document.replace("\n\t", "  ")
