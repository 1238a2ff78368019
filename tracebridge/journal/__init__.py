"""The journal: append-only JSONL files, one folder per session."""
