"""What makes those who failed together come back apart."""

from __future__ import annotations

import random
from typing import Final

JITTER: Final = random.SystemRandom()
"""Not set by an agent's seed, which would have all of its workers come back at once, and not moving on what the agent
draws itself."""
