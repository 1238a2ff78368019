"""The mutation suite: every kind of defect planted in what a backend stores, and what validation makes of it."""
