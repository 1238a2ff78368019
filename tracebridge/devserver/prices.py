"""The entries of Langfuse's price list that the recorded exchanges show, and a stand-in for its tokenizer."""

from __future__ import annotations

import re
from decimal import ROUND_DOWN, Decimal

import msgspec


class Model(msgspec.Struct, frozen=True):
    """A model of the server's list: its id there and its price per unit of each usage key, in USD."""

    id: str
    prices: dict[str, Decimal]


def _prices(**prices: str) -> dict[str, Decimal]:
    return {key: Decimal(price) for key, price in prices.items()}


_MODELS = (
    (
        re.compile(r"(openai/)?gpt-4o-mini(-2024-07-18)?", re.IGNORECASE),
        Model(
            "clyrjp56f0000t0mzapoocd7u",
            _prices(input="1.5e-7", output="6e-7", input_cached_tokens="7.5e-8"),
        ),
    ),
    (
        re.compile(r"(openai/)?gpt-4o", re.IGNORECASE),
        Model(
            "b9854a5c92dc496b997d99d20",
            _prices(input="2.5e-6", output="1e-5", input_cached_tokens="1.25e-6"),
        ),
    ),
    (
        re.compile(r"(anthropic/)?claude-3-5-sonnet-20241022", re.IGNORECASE),
        Model(
            "cm2krz1uf000208jjg5653iud",
            _prices(
                input="3e-6",
                output="1.5e-5",
                cache_read_input_tokens="3e-7",
                input_cached_tokens="3e-7",
                cache_creation_input_tokens="3.75e-6",
                input_cache_creation="3.75e-6",
            ),
        ),
    ),
)
_TOKEN = re.compile(r"\w+|[^\w\s]")
_STEP = Decimal("1e-12")
_LARGEST = Decimal("999999.999999")  # the column is Decimal(18, 12); what does not fit is capped here


def model_named(name: str) -> Model | None:
    """The entry that matches a model name, if the list has it."""
    return next((model for pattern, model in _MODELS if pattern.fullmatch(name)), None)


def model_with_id(model_id: str) -> Model | None:
    """The entry with this id."""
    return next((model for _, model in _MODELS if model.id == model_id), None)


def token_count(text: str) -> int:
    """About as many tokens as the server's tokenizer would count: words and marks."""
    return len(_TOKEN.findall(text))


def stored_cost(amount: Decimal) -> float:
    """An amount as the database keeps it: twelve decimals, cut, capped."""
    capped = max(-_LARGEST, min(_LARGEST, amount))
    return float(capped.quantize(_STEP, ROUND_DOWN))


def price_text(price: Decimal) -> str:
    """A price as the API prints it: exponents only below 1e-6."""
    plain = f"{price:f}"
    if price == 0 or abs(price) >= Decimal("1e-6"):
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    digits, exponent = f"{price.normalize():e}".split("e")
    return f"{digits}e{int(exponent)}"
