"""The rules that spans are sent with, and the short fingerprint of them that each sent span carries.

What a backend should hold is always computed under the rules that were in force when it was sent.
"""

from __future__ import annotations

import hashlib

import msgspec

from tracebridge import policy as policies
from tracebridge.config import SinkSettings
from tracebridge.policy import Policy
from tracebridge.sink import Capabilities


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What decides how a span is sent."""

    policy: Policy
    mapping_version: int

    @property
    def text(self) -> str:
        """The rules as one canonical line of JSON, which `rules_from_text` reads."""
        return f'{{"mapping":{self.mapping_version},"policy":{policies.describe(self.policy)}}}'

    @property
    def fingerprint(self) -> str:
        """A short name of the rules: 12 hex digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]


class _Text(msgspec.Struct):
    mapping: int
    policy: msgspec.Raw


def rules_of(policy: Policy, capabilities: Capabilities) -> Rules:
    """The rules of a sink."""
    return Rules(policy=policy, mapping_version=capabilities.mapping_version)


def rules_from_text(text: str) -> Rules:
    """Read what `Rules.text` gave.

    Raises:
        msgspec.ValidationError: `text` is not the text of rules.
    """
    parsed = msgspec.json.decode(text, type=_Text)
    return Rules(policy=policies.from_description(bytes(parsed.policy).decode()), mapping_version=parsed.mapping)


def current_rules(sink: SinkSettings) -> str:
    """Names what a comparison with a sink is made under now: the fingerprint of its policy and version of the mapping.

    A comparison that was made under another name proves nothing for what is sent now.
    """
    return rules_of(sink.policy, sink.capabilities).fingerprint
