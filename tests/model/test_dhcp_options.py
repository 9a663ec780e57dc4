"""Options of DHCP as an operator writes them, and as they are on the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.model.dhcp_options import OPTIONS, OURS, canonical, encoded, option_name


@pytest.mark.parametrize(
    ("name", "values", "code", "wire"),
    [
        ("ntp-server", ["10.0.0.3", "10.0.0.4"], 42, "0a0000030a000004"),
        ("domain-search", ["a.example", "b"], 119, "016107657861 6d706c6500 016200"),
        ("time-offset", ["-3600"], 2, "fffff1f0"),
        ("ip-forward-enable", ["1"], 19, "01"),
        ("boot-file-size", ["300"], 13, "012c"),
        ("tftp-server", ["boot.example"], 66, "626f6f742e6578616d706c65"),
        ("posix-timezone", ["EST5EDT,M3.2.0"], 100, "455354354544542c4d332e322e30"),
        ("224", ["01:0a:ff"], 224, "010aff"),
        ("224", ["7s"], 224, "0007"),
        ("224", ["10.0.0.3"], 224, "0a000003"),
        ("252", ["http://a"], 252, "687474703a2f2f61"),
    ],
)
def test_what_is_written(name: str, values: list[str], code: int, wire: str) -> None:
    assert encoded(name, values) == (code, bytes.fromhex(wire))


def test_every_number_has_one_name_or_is_refused_with_what_to_do() -> None:
    refused = set()
    for code in range(256):
        try:
            name = option_name(str(code))
        except ValueError as error:
            refused.add(code if "; " in str(error) else -1)
            continue
        assert option_name(name) == name
        assert name in OPTIONS or name == str(code)
    assert refused >= {0, 53, 255, *OURS}
    assert -1 not in refused
    assert len(refused) < 40


@pytest.mark.parametrize("code", OURS)
def test_what_has_a_field_of_its_own_is_refused_by_either_name(code: int) -> None:
    for word in (str(code), OURS[code][0]):
        with pytest.raises(ValueError, match=OURS[code][1]):
            option_name(word)


@given(
    st.sampled_from([*OPTIONS, "224", "252"]), st.lists(st.text(max_size=9) | st.sampled_from(["10.0.0.1", "7", "1:"]))
)
def test_any_value_is_written_or_refused_and_its_one_form_says_the_same(name: str, values: list[str]) -> None:
    try:
        said = encoded(name, values)
    except ValueError:
        return
    assert 0 < len(said[1]) <= 255
    assert encoded(name, canonical(name, values)) == said
    assert canonical(name, canonical(name, values)) == canonical(name, values)
