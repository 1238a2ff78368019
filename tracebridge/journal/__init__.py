"""The journal: append-only JSONL files, one folder per session."""

try:
    import fcntl as _fcntl  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(
        "tracebridge runs on Linux, macOS and other POSIX systems only: on this one (Windows?) there are no locks that "
        "its journal could rely on. On Windows, use it inside WSL, with trace_dir on the Linux file system"
    ) from error
