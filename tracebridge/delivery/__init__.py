"""Delivery: from the journal to every sink, by a cursor per sink and session."""
