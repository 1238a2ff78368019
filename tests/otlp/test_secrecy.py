from __future__ import annotations

import pytest

from tracebridge.errors import ConfigurationError
from tracebridge_otlp.answer import shortened
from tracebridge_otlp.secrecy import Redactor, header_fields, without_credentials


@pytest.mark.parametrize(
    ("quoted", "shown"),
    [
        ("no such key: Basic dXNlcjpwYXNz", "no such key: ***"),
        ("no such key: dXNlcjpwYXNz", "no such key: ***"),
        ("http://me:hunter22@host is away", "http://me:***@host is away"),
        ("version 4 is unknown", "version 4 is unknown"),
    ],
)
def test_credentials_are_masked_wherever_a_backend_quotes_them(quoted: str, shown: str) -> None:
    redact = Redactor(["Basic dXNlcjpwYXNz", "4"], "http://me:hunter22@host/")
    assert redact(quoted) == shown


def test_a_secret_that_begins_with_another_is_masked_whole() -> None:
    assert Redactor(["abcd", "abcdef"], "http://host")("abcdef") == "***"


@pytest.mark.parametrize("room", range(len("Bearer hunter22-is-long") + 2))
def test_wherever_a_message_is_cut_no_part_of_a_secret_is_left_at_its_end(room: int) -> None:
    redact = Redactor(["Bearer hunter22-is-long", "another"], "http://host")
    cut = redact(shortened("x" * (299 - room) + "Bearer hunter22-is-long is no key of ours"))
    assert "hunt" not in cut
    assert cut.startswith("x" * (299 - room))


def test_a_shown_url_has_no_user_and_no_query() -> None:
    assert without_credentials("https://u:p@host:1/path?token=x#y") == "https://host:1/path"


def test_header_names_have_one_spelling() -> None:
    assert header_fields({"Content-Type": "a", "X-Key": "b"}) == {"content-type": "a", "x-key": "b"}


@pytest.mark.parametrize("name", ["Authorization:", "X Scope", "", "clé", "Authorization: Basic hunter22"])
def test_a_name_that_no_header_has_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="a name that no header can have") as caught:
        header_fields({"X-Key": "a", name: "hunter22"})
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize("value", ["hunter22\n", "hunter22é", "hunter\x0022"])
def test_a_value_that_no_header_can_carry_is_refused_without_being_told(value: str) -> None:
    with pytest.raises(ConfigurationError, match="authorization") as caught:
        header_fields({"authorization": value})
    assert "hunter" not in str(caught.value)
