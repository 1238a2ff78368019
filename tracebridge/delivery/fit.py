"""`Fitting`: encodes spans so that each fits into a request, and leaves out of one that is too large what must go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import msgspec

from tracebridge import policy as policies
from tracebridge.assembler import narrow_span
from tracebridge.delivery.rules import Rules, rules_of
from tracebridge.errors import TracebridgeError
from tracebridge.policy import Policy
from tracebridge.sink import Capabilities, CuttingSink, Sink
from tracebridge.span import Span

_LONGEST_CUT: Final = 1 << 23
_SHORTEST_CUT: Final = 1 << 6
"""In characters. Each length between them is half of the one before, so that there are few sets of rules."""


class UnfitError(TracebridgeError):
    """A span is too large for a request, whatever is cut of it."""


class Fitting:
    """Encodes the spans of one sink under its policy, and under narrower ones where they are too large.

    A span that is cut is one that a narrower policy would have given: so what the backend should hold of it can be
    foretold from the journal, like that of any other.
    """

    def __init__(
        self,
        policy: Policy,
        capabilities: Capabilities,
        sink: Sink,
        keep_rules: Callable[[Rules], None],
    ) -> None:
        """`sink` encodes; `keep_rules` is told of rules before anything is encoded under them for the first time."""
        self._policy = policy
        self._capabilities = capabilities
        self._encode = sink.encode
        self._cut_by_sink = sink.take_cut if isinstance(sink, CuttingSink) else int
        self._keep_rules = keep_rules
        self._fingerprint = self._fingerprint_of(policy)
        self.max_bytes = capabilities.max_request_bytes
        """The most that an encoded span may have. It is lowered when the backend refuses one of fewer bytes."""
        self._cut = 0

    def encode(self, span: Span) -> bytes:
        """Encode a span that was made under the sink's policy, cut if need be.

        Raises:
            UnfitError: it is too large, whatever is cut of it.
        """
        self._cut_by_sink()  # what was encoded elsewhere is counted there
        part = self.whole(span)
        if len(part) <= self.max_bytes:
            self._cut += self._cut_by_sink()
            return part
        try:
            cut = self.below(span, self.max_bytes)
        except UnfitError:
            if not self._is_lowered:
                raise
            # a backend that has refused so little may have refused everything for a while: let it be asked again
            self.forget_refusals()
            return self.encode(span)
        self._cut += 1
        return cut

    def refused(self, size: int) -> None:
        """The backend found an encoded span of so many bytes too large: no other of that size need be tried."""
        self.max_bytes = min(self.max_bytes, size - 1)

    def forget_refusals(self) -> None:
        """What the backend found too large says nothing of what it takes."""
        self.max_bytes = self._capabilities.max_request_bytes

    @property
    def _is_lowered(self) -> bool:
        return self.max_bytes < self._capabilities.max_request_bytes

    def whole(self, span: Span) -> bytes:
        """Encode a span uncut, however large it is."""
        return self._encode(msgspec.structs.replace(span, fingerprint=self._fingerprint))

    def below(self, span: Span, max_bytes: int) -> bytes:
        """Encode a span cut to at most `max_bytes`.

        Raises:
            UnfitError: it is too large, whatever is cut of it.
        """
        for policy in self._narrower(max_bytes):
            cut = narrow_span(partial(policies.apply, policy), span)
            part = self._encode(msgspec.structs.replace(cut, fingerprint=self._fingerprint_of(policy)))
            if len(part) <= max_bytes:
                return part
        raise UnfitError(f"it has more than {max_bytes:,} bytes, whatever is cut of its texts")

    def take_cut(self) -> int:
        """How many spans `encode` has cut, or the sink has, since this was asked last."""
        cut, self._cut = self._cut, 0
        return cut

    def _narrower(self, max_bytes: int) -> Iterator[Policy]:
        """Policies that leave less and less."""
        length = _LONGEST_CUT
        while length > max_bytes:
            length //= 2
        while length >= _SHORTEST_CUT:
            yield policies.narrow(self._policy, Policy(max_content_length=length))
            length //= 2
        yield policies.narrow(
            self._policy, Policy(max_content_length=_SHORTEST_CUT, include_messages=False, include_thinking=False)
        )

    def _fingerprint_of(self, policy: Policy) -> str:
        rules = rules_of(policy, self._capabilities)
        self._keep_rules(rules)
        return rules.fingerprint
