"""`Shop`: a small shop's records, and what may be done with them. The demo's agent has these as its tools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

Tool = Callable[..., Any]
"""Takes its arguments by name; what it raises is the call's failure."""


class RefundRefusedError(Exception):
    """A refund that the shop's rules do not allow."""


class UnknownOrderError(Exception):
    """There is no order of that number."""


class Order(msgspec.Struct, kw_only=True):
    """What one customer has bought."""

    number: str
    article: str
    paid: float
    parcel: str
    days_since_delivery: int | None
    """None while it is on its way."""
    refunded: float = 0.0


RETURN_DAYS: Final = 30

DEFINITIONS: Final[list[dict[str, Any]]] = [
    {
        "name": "find_order",
        "description": "Look an order up.",
        "parameters": {"type": "object", "properties": {"number": {"type": "string"}}, "required": ["number"]},
    },
    {
        "name": "track_parcel",
        "description": "Tell where a parcel is.",
        "parameters": {"type": "object", "properties": {"parcel": {"type": "string"}}, "required": ["parcel"]},
    },
    {
        "name": "refund",
        "description": "Pay an order back, in part or whole.",
        "parameters": {
            "type": "object",
            "properties": {"number": {"type": "string"}, "amount": {"type": "number"}},
            "required": ["number", "amount"],
        },
    },
    {
        "name": "ask_warehouse",
        "description": "Ask the warehouse's own agent.",
        "parameters": {"type": "object", "properties": {"question": {"type": "string"}}, "required": ["question"]},
    },
    {
        "name": "count_stock",
        "description": "Count what lies in the warehouse.",
        "parameters": {"type": "object", "properties": {"article": {"type": "string"}}, "required": ["article"]},
    },
]
"""The tools as a model is told of them."""


class Shop:
    """Orders, parcels and stock, in memory."""

    def __init__(self) -> None:
        orders = (
            Order(number="A-17", article="kettle", paid=39.9, parcel="P-901", days_since_delivery=None),
            Order(number="A-22", article="lamp", paid=64.0, parcel="P-877", days_since_delivery=41),
        )
        self._orders = {order.number: order for order in orders}
        self._parcels = {"P-901": ["packed", "at the sorting centre"], "P-877": ["packed", "delivered"]}
        self._stock = {"kettle": 12, "lamp": 0}

    @property
    def tools(self) -> dict[str, Tool]:
        """The tools by name."""
        return {
            "find_order": self.find_order,
            "track_parcel": self.track_parcel,
            "refund": self.refund,
            "count_stock": self.count_stock,
        }

    def find_order(self, number: str) -> dict[str, Any]:
        """Return an order."""
        found: dict[str, Any] = msgspec.to_builtins(self._order(number))
        return found

    def track_parcel(self, parcel: str) -> list[str]:
        """Return where a parcel has been, the last place last."""
        return self._parcels[parcel]

    def refund(self, number: str, amount: float) -> float:
        """Pay back, if the rules allow it; return what was paid back for the order in all."""
        order = self._order(number)
        if order.days_since_delivery is not None and order.days_since_delivery > RETURN_DAYS:
            raise RefundRefusedError(
                f"delivered {order.days_since_delivery} days ago; returns are taken for {RETURN_DAYS} days"
            )
        order.refunded += min(amount, order.paid - order.refunded)
        return order.refunded

    def count_stock(self, article: str) -> int:
        """Return how many there are."""
        return self._stock[article]

    def _order(self, number: str) -> Order:
        if number not in self._orders:
            raise UnknownOrderError(number)
        return self._orders[number]
