"""`tracebridge devserver`: an embedded backend for development, tests and demos."""

from __future__ import annotations

import argparse
from pathlib import Path

from tracebridge.cli.command import Commands, add_command
from tracebridge.errors import MissingExtraError

_DESCRIPTION = """\
Starts a development backend on this machine: it takes OTLP as Jaeger, Tempo and LangFuse do and answers their query
APIs, so that nothing needs Docker or an account. It listens on the loopback interface only and ends at Ctrl-C.

Point sinks at it:
  langfuse: {host: http://127.0.0.1:4318, public_key: pk-lf-dev, secret_key: sk-lf-dev}
  otel:     {endpoint: http://127.0.0.1:4318, reader: {type: jaeger, url: http://127.0.0.1:4318}}
"""


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = add_command(commands, "devserver", run, "an embedded backend for development and tests", _DESCRIPTION)
    parser.add_argument("--port", type=int, default=4318, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--db", type=Path, metavar="FILE", help="keep what is sent in this SQLite file")
    parser.add_argument("--public-key", default="pk-lf-dev", metavar="KEY", help="default: %(default)s")
    parser.add_argument("--secret-key", default="sk-lf-dev", metavar="KEY", help="default: %(default)s")
    parser.add_argument(
        "--tempo-attribute-bytes",
        type=int,
        default=2_048,
        metavar="N",
        help="where Tempo's API cuts the texts of attributes; 0 cuts none (default: %(default)s)",
    )
    parser.add_argument("--grpc-port", type=int, metavar="PORT", help="also take OTLP over gRPC; 0 takes a free port")


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted."""
    try:
        from tracebridge.devserver import Settings, Tempo, serve
        from tracebridge.devserver.langfuse_api import Credentials
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"the development backend needs {error.name}: pip install 'tracebridge[devserver]'"
        ) from None
    serve(
        Settings(
            port=arguments.port,
            db=arguments.db,
            credentials=Credentials(arguments.public_key, arguments.secret_key),
            grpc_port=arguments.grpc_port,
            tempo=Tempo(max_attribute_bytes=arguments.tempo_attribute_bytes),
        ),
        ready=lambda url: print(f"development backend at {url}; stop it with Ctrl-C", flush=True),
        grpc_ready=lambda endpoint: print(f"OTLP over gRPC at http://{endpoint}", flush=True),
    )
    return 0
