from __future__ import annotations

import copy
import json
import logging
import pickle

import msgspec
import pytest

from tracebridge.secret import MASK, Secret

TEXT = "sk-lf-hidden"


class Login(msgspec.Struct):
    user: str
    key: Secret


def test_only_reveal_gives_the_text() -> None:
    assert Secret(TEXT).reveal() == TEXT


@pytest.mark.parametrize(
    "shown",
    [
        repr(Secret(TEXT)),
        str(Secret(TEXT)),
        f"{Secret(TEXT)}",
        f"{Secret(TEXT)!r:>40}",
        "{:>20}".format(Secret(TEXT)),  # noqa: UP032  # the method is what is tested
        "%s" % Secret(TEXT),  # noqa: UP031  # the operator is what is tested
        repr({"key": [Secret(TEXT)]}),
        repr(Login(user="u", key=Secret(TEXT))),
        str(vars(Login).get("key")),
    ],
)
def test_no_way_of_showing_it_shows_the_text(shown: str) -> None:
    assert TEXT not in shown


def test_a_log_line_shows_the_mask(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        logging.getLogger(__name__).info("connecting with %s", Secret(TEXT))
    assert caplog.messages == [f"connecting with {MASK}"]


@pytest.mark.parametrize("encode", [json.dumps, msgspec.json.encode, msgspec.to_builtins, pickle.dumps])
def test_encoders_refuse_it(encode) -> None:
    with pytest.raises(TypeError) as refused:
        encode(Secret(TEXT))
    assert TEXT not in str(refused.value)


def test_it_can_be_copied_and_compared() -> None:
    secret = Secret(TEXT)
    assert copy.deepcopy({"key": secret})["key"] == secret
    assert copy.copy(secret) == secret
    assert len({secret, Secret(TEXT), Secret("other")}) == 2
    assert secret != TEXT
