"""Messages are found in a stream however it is cut."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.idl.framing import Framer, FramingError

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
_MESSAGES = st.lists(st.dictionaries(st.text(), _JSON, max_size=4), max_size=5)


def cut(framer: Framer, pieces: list[bytes]) -> list[dict[str, Any]]:
    found = []
    for piece in pieces:
        framer.feed(piece)
        while (message := framer.next()) is not None:
            found.append(message)
    return found


@given(_MESSAGES, st.booleans(), st.sampled_from(["", " ", "\n\t"]), st.data())
def test_any_cut_gives_the_same_messages(
    messages: list[dict[str, Any]], ascii_only: bool, space: str, data: st.DataObject
) -> None:
    stream = space.join(json.dumps(each, ensure_ascii=ascii_only) for each in messages).encode()
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    pieces = [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]
    assert cut(Framer(1 << 20), pieces) == messages


def test_a_character_that_two_reads_split_arrives_whole() -> None:
    stream = '{"näme":"€ {\\" 𝄞}"}'.encode()
    assert cut(Framer(100), [bytes([byte]) for byte in stream]) == [{"näme": '€ {" 𝄞}'}]


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "does not speak JSON-RPC"),
        (b"[1]", "does not speak JSON-RPC"),
        (b"}", "does not speak JSON-RPC"),
        (b'{"a":}', "invalid JSON"),
        (b'{"a":"\xff"}', "invalid JSON"),
        (b'{"a":' + b"[" * 200_000 + b"}", "invalid JSON"),
        (b'{"a":' + b"1" * 5000 + b"}", "invalid JSON"),
        (b'{"a":"' + b"x" * 300_000, "longer than 250000"),
        (b'{"a":"' + b"x" * 300_000 + b'"}', "longer than 250000"),
        (b'{"a":' * 60_000, "longer than 250000"),
    ],
)
def test_what_is_no_message_is_refused_with_a_reason(stream: bytes, reason: str) -> None:
    with pytest.raises(FramingError, match=reason):
        cut(Framer(250_000), [stream])


def test_the_work_grows_with_the_bytes_alone() -> None:
    """A peer that sends one endless string in small pieces must not cost the square of its length."""

    def cost(size: int) -> float:
        framer, piece = Framer(1 << 30), b"\\\\x" * 1000
        framer.feed(b'{"a":"')
        begin = time.process_time()
        for _ in range(size):
            framer.feed(piece)
            framer.next()
        return time.process_time() - begin

    assert cost(4000) < 12 * max(cost(1000), 0.005)
