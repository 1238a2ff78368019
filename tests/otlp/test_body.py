from __future__ import annotations

import gzip
import re
import socket
import ssl
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.otlp.scripted_server import Script, answering, http_answer, scripted_server
from tracebridge.sink import Outcome, Receipt
from tracebridge_otlp.body import PIECE_BYTES, pieces_of
from tracebridge_otlp.http_client import body_of, client_for
from tracebridge_otlp.http_transport import HttpTransport

PARTIAL = b'{"partialSuccess": {"rejectedSpans": "2", "errorMessage": "%s"}}' % (b"because " * 500)
BOMB = gzip.compress(bytes(200 << 20), compresslevel=9)
FEW: int = 12 * PIECE_BYTES


def packed(body: bytes, encoding: str, status: int = 200) -> bytes:
    return http_answer(status, "application/json", body, f"Content-Encoding: {encoding}")


@contextmanager
def memory() -> Iterator[Callable[[], int]]:
    """Gives the most bytes that were in use at once since."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def posted(answer: bytes) -> Receipt:
    with scripted_server(answering(answer)) as url, HttpTransport(url, headers={}) as http:
        return http.post(b"spans")


def asked(answer: bytes | Script, most_bytes: int | None = None) -> bytes:
    with (
        scripted_server(answering(answer) if isinstance(answer, bytes) else answer) as url,
        client_for(url, verify=ssl.create_default_context(), timeout=5) as client,
        client.stream("GET", url) as response,
    ):
        return body_of(response, timeout_s=5, most_bytes=most_bytes)


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("X-GZip", gzip.compress), ("deflate", zlib.compress)]
)
def test_an_answer_is_read_as_it_was_before_it_was_packed(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    receipt = posted(packed(pack(PARTIAL), encoding))
    assert (receipt.outcome, receipt.rejected) == (Outcome.ACCEPTED, 2)
    assert asked(packed(pack(PARTIAL), encoding)) == PARTIAL
    large = b"".join(b"%d " % number for number in range(PIECE_BYTES // 2))
    assert asked(packed(pack(large), encoding)) == large


@pytest.mark.parametrize(("status", "outcome"), [(200, Outcome.UNKNOWN), (400, Outcome.REJECTED)])
def test_an_answer_that_unpacks_to_any_size_takes_no_more_memory_than_one_that_is_looked_at(
    status: int, outcome: Outcome
) -> None:
    answer = packed(BOMB, "gzip", status)
    with memory() as peak:
        assert posted(answer).outcome is outcome
        assert peak() < FEW


def test_a_page_that_unpacks_to_any_size_is_given_up_where_it_is_too_large() -> None:
    answer = packed(BOMB, "gzip")
    with memory() as peak:
        with pytest.raises(httpx.ReadError, match="more than 2 MiB"):
            asked(answer, most_bytes=2 << 20)
        assert peak() < FEW


@pytest.mark.parametrize("encoding", ["UTF-8", "none", "identity", "8bit"])
def test_an_answer_is_read_as_it_is_where_its_header_names_no_way_to_pack_it(encoding: str) -> None:
    assert posted(packed(PARTIAL, encoding)).rejected == 2
    assert asked(packed(PARTIAL, encoding)) == PARTIAL


def test_a_server_that_makes_a_deflate_of_its_own_is_not_asked_for_it() -> None:
    def answer(connection: socket.socket, request: bytes) -> None:
        pack = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        is_packed = re.search(rb"(?im)^accept-encoding:.*deflate", request) is not None
        body = pack.compress(PARTIAL) + pack.flush() if is_packed else PARTIAL
        connection.sendall(packed(body, "deflate" if is_packed else "identity"))

    assert asked(answer) == PARTIAL


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "zstd", "compress"])
def test_an_answer_that_is_packed_as_nobody_asked_for_is_told_and_not_unpacked(encoding: str) -> None:
    answer = packed(gzip.compress(gzip.compress(PARTIAL)), encoding)
    receipt = posted(answer)
    assert receipt.outcome is Outcome.UNKNOWN
    assert f"content-encoding is '{encoding}'" in receipt.message
    with pytest.raises(httpx.DecodingError, match="content-encoding is"):
        asked(answer)


def test_an_answer_that_is_not_packed_as_it_says_is_told() -> None:
    assert posted(packed(PARTIAL, "gzip")).outcome is Outcome.UNKNOWN
    with pytest.raises(httpx.DecodingError, match="incorrect header check"):
        asked(packed(PARTIAL, "gzip"))


@pytest.mark.parametrize("encoding", ["br", "gzip"])
def test_the_status_of_an_error_says_enough_where_its_body_cannot_be_unpacked(encoding: str) -> None:
    assert asked(packed(b"not packed so", encoding, 404)) == b""
    assert posted(packed(b"not packed so", encoding, 413)).outcome is Outcome.TOO_LARGE


def test_no_piece_is_large() -> None:
    response = httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(BOMB))
    assert max(map(len, pieces_of(response))) == PIECE_BYTES
