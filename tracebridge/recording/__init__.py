"""Recording: what the agent's code calls, down to the line that is written to the journal."""
