"""The soak: agents, shippers and a backend that die, hang, lag and run out of disk, and an account of every event."""
