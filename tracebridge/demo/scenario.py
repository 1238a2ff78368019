"""`Scenario`: what the demo's agent does, turn by turn; here the scripted one, of two customers of a small shop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

import msgspec

from tracebridge import Turn, trace_session
from tracebridge.demo.agent import Agent, sub_agent
from tracebridge.demo.model import Reply, ScriptedModel, ToolRequest
from tracebridge.demo.shop import Shop


class PlayedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that is over, as the public API tells of it."""

    session_id: str
    number: int
    trace_id: str
    span_id: str
    user_input: Any
    output: Any


class Scenario(Protocol):
    """What an agent does, through the public API."""

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        ...

    @property
    def turns(self) -> int:
        """How many turns it has."""
        ...

    def play(self) -> Iterator[PlayedTurn]:
        """Take turn after turn; it goes on where it was only when it is asked for the next one."""
        ...


def played(turn: Turn) -> PlayedTurn:
    """Return what there is to tell of a turn."""
    return PlayedTurn(
        session_id=turn.session.session_id,
        number=turn.number,
        trace_id=turn.trace_id,
        span_id=turn.span_id,
        user_input=turn.user_input,
        output=turn.output,
    )


class Exchange(msgspec.Struct, frozen=True):
    """What the user says, and what the model answers until the turn is over."""

    user_input: str
    replies: tuple[Reply, ...]
    of_warehouse: tuple[Reply, ...] = ()
    """What the warehouse's agent is answered by its own model."""


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """One customer's session."""

    session_id: str
    user_id: str
    exchanges: tuple[Exchange, ...]


CONVERSATIONS: Final = (
    Conversation(
        session_id="ada-order-A-17",
        user_id="ada",
        exchanges=(
            Exchange(
                "Where is my order A-17?",
                (
                    Reply(
                        thinking="The order tells the parcel; both can be looked up at once, the parcel is P-901.",
                        tool_requests=(
                            ToolRequest("find_order", {"number": "A-17"}),
                            ToolRequest("track_parcel", {"parcel": "P-901"}),
                        ),
                    ),
                    Reply(content="Your kettle is at the sorting centre. It arrives tomorrow."),
                ),
            ),
            Exchange(
                "Can I have two more of them?",
                (
                    Reply(tool_requests=(ToolRequest("ask_warehouse", {"question": "Are there two more kettles?"}),)),
                    Reply(content="Yes, the warehouse has twelve. Shall I order two?"),
                ),
                of_warehouse=(
                    Reply(tool_requests=(ToolRequest("count_stock", {"article": "kettle"}),)),
                    Reply(content="There are 12 kettles."),
                ),
            ),
        ),
    ),
    Conversation(
        session_id="ben-order-A-22",
        user_id="ben",
        exchanges=(
            Exchange(
                "I want my 64.00 for order A-22 back.",
                (
                    Reply(is_overloaded=True),
                    Reply(
                        thinking="He wants a refund; try it, the shop knows its rules.",
                        tool_requests=(ToolRequest("refund", {"number": "A-22", "amount": 64.0}),),
                    ),
                    Reply(content="I am sorry: it was delivered 41 days ago, and we take returns for 30 days."),
                ),
            ),
            Exchange(
                "Then send me another lamp, please.",
                (
                    Reply(
                        tool_requests=(
                            ToolRequest("count_stock", {"article": "lamp"}),
                            ToolRequest("count_stock", {"article": "kettle"}),
                            ToolRequest("find_order", {"number": "A-22"}),
                        )
                    ),
                    Reply(content="The lamp is sold out. We could offer you a kettle instead."),
                ),
            ),
        ),
    ),
    Conversation(
        session_id="ada-order-A-17",
        user_id="ada",
        exchanges=(
            Exchange(
                "Yes, two more kettles. And cancel nothing!",
                (
                    Reply(tool_requests=(ToolRequest("find_order", {"number": "A-17"}),)),
                    Reply(content="Two more kettles are on their way; order A-17 stays as it is."),
                ),
            ),
            Exchange("Thanks!", (Reply(content="You are welcome."),)),
        ),
    ),
)
"""Ada comes back in the end: her session is entered a second time, as a run of its own."""


class OrderDesk:
    """The scripted conversations, held with a scripted model and real tools."""

    title = "an agent at the order desk of a small shop: a scripted model, real tools"

    def __init__(self, seconds_to_first_token: float = 0.03) -> None:
        self._seconds_to_first_token = seconds_to_first_token

    @property
    def turns(self) -> int:
        """How many turns users take; a sub-agent's turn is not one of them."""
        return sum(len(conversation.exchanges) for conversation in CONVERSATIONS)

    def play(self) -> Iterator[PlayedTurn]:
        """Hold one conversation after the other."""
        shop = Shop()
        for conversation in CONVERSATIONS:
            yield from self._hold(conversation, shop)

    def _hold(self, conversation: Conversation, shop: Shop) -> Iterator[PlayedTurn]:
        exchanges = conversation.exchanges
        model = self._model(reply for exchange in exchanges for reply in exchange.replies)
        of_warehouse = self._model(reply for exchange in exchanges for reply in exchange.of_warehouse)
        with trace_session(
            session_id=conversation.session_id,
            user_id=conversation.user_id,
            agent_name="order-desk",
            tags=["demo"],
            metadata={"channel": "chat"},
        ) as session:
            warehouse = sub_agent(session, of_warehouse, {"count_stock": shop.count_stock})
            agent = Agent(session, model, {**shop.tools, "ask_warehouse": warehouse})
            for exchange in exchanges:
                yield played(agent.answer(exchange.user_input))
            session.outcome = "answered"

    def _model(self, replies: Iterator[Reply]) -> ScriptedModel:
        return ScriptedModel(tuple(replies), self._seconds_to_first_token)
