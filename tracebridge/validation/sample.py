"""Which sessions a sample is of, and what it proves about the others. Pure."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from math import comb, exp, lgamma
from typing import Final

CONFIDENCE: Final = 0.95
_HASHES: Final = 2**64
_ROUNDING: Final = 1e-7


def is_drawn(session_id: str, share: float) -> bool:
    """Whether a session is in the sample.

    It depends on the id and the share alone, so a sample is the same every time, and one of 1 % is a part of one of
    10 %. It is drawn by another hash than a policy's `sample_rate`, else a sample would hold all of what that keeps.
    """
    digest = hashlib.blake2b(session_id.encode("utf-8", "surrogatepass"), digest_size=8, person=b"validate").digest()
    return int.from_bytes(digest, "big") < share * _HASHES


def undetected_at_most(compared: int, of: int, confidence: float = CONFIDENCE) -> int:
    """How many of `of` sessions may be defective at most, if none of `compared` that were drawn from them is.

    The largest number of which `compared` sessions, drawn at random, would all be clean with a probability of more than
    1 - `confidence`; one more defective session would have been found with that confidence.
    """
    if compared == 0:
        return of
    low, high = 0, of - compared
    while low < high:
        middle = (low + high + 1) // 2
        if _may_be_missed(compared, of, middle, confidence):
            low = middle
        else:
            high = middle - 1
    return low


def _may_be_missed(drawn: int, of: int, defective: int, confidence: float) -> bool:
    """Whether `drawn` of `of` hold none of the defective ones with a probability of more than 1 - `confidence`."""
    if drawn > of - defective:
        return False
    chance = exp(
        lgamma(of - defective + 1) - lgamma(of - defective - drawn + 1) - lgamma(of + 1) + lgamma(of - drawn + 1)
    )
    if abs(chance - (1 - confidence)) > _ROUNDING:
        return chance > 1 - confidence
    # so close that rounding would decide
    return comb(of - defective, drawn) > (1 - Fraction(str(confidence))) * comb(of, drawn)
