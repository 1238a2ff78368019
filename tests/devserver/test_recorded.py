"""Every recorded exchange with a real Langfuse, replayed against the development backend."""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.devserver.recordings import OTLP_ROUTE, Recording, export_for, load, richest, sent_spans
from tracebridge.devserver import DevServer
from tracebridge.testing import Fault

KEYS = ("pk-lf-test", "sk-lf-test")
NO_SCORES = "the development backend keeps no scores"
NO_METRICS = "the development backend aggregates no metrics"
NO_LISTS = "the development backend has no models, prompts, datasets and score configs"

EXCLUDED = {
    **dict.fromkeys((21, 103, 106, 218, 219, 220, 221, 222, 223, 306, 314), NO_SCORES),
    **dict.fromkeys((22, 204, 205, 206, 207, 208, 209, 210, 211, 212, 213, 214, 215, 297), NO_METRICS),
    **dict.fromkeys((24, 25, 26, 27, 310, 311, 312, 313), NO_LISTS),
    225: "was recorded in dual write mode, as its name and its row without an end time say",
}

# The recordings hide credentials; these were sent with others than the right ones.
CREDENTIALS = {
    68: "Basic " + base64.b64encode(b"pk-lf-test:wrong").decode(),
    69: "Basic " + base64.b64encode(b"pk-lf-unknown:sk-lf-test").decode(),
    70: "Bearer pk-lf-test",
}

# What the server did with an export besides answering it, as later exchanges show.
FATES = {
    1: Fault(drop=True),  # was sent before the worker ran and never appeared
    41: Fault(visibility_lag_s=3600),  # was not readable when it was asked for
}

# Attributes that an answer does not show but that its being found by a filter proves.
UNSEEN_ATTRIBUTES = {"c2a308d524be940c": {"langfuse.trace.tags": ["a"]}}

# Rows behind a page that had a cursor to more: one older row of the same trace.
UNSEEN_ROWS = {
    91: {
        "id": "00000000000000aa",
        "traceId": "2dffb5aa1601127669769a762b48b4c2",
        "startTime": "2026-11-21T11:50:58.000Z",
        "endTime": "2026-11-21T11:50:59.000Z",
        "parentObservationId": "e2e10deb6c798be9",
        "type": "SPAN",
    }
}

OUR_NAMES = {
    "proj-test": "proj-dev",
    "org-test": "org-dev",
    "Test Project": "Development",
    "Test Org": "Development",
}


@pytest.fixture
def server() -> Iterator[DevServer]:
    with DevServer(public_key=KEYS[0], secret_key=KEYS[1]) as server:
        yield server


@pytest.fixture
def client(server: DevServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as client:
        yield client


def test_every_recorded_exchange_is_answered_as_recorded(shared: Path, server: DevServer, client: httpx.Client) -> None:
    recordings = load(shared)
    assert {recording.number for recording in recordings} >= EXCLUDED.keys()
    replay = Replay(recordings, server, client)
    for recording in recordings:
        if recording.number not in EXCLUDED:
            replay.exchange(recording)
    assert replay.count == len(recordings) - len(EXCLUDED)
    assert replay.differences == []


def test_what_the_sdk_sent_reads_back_as_recorded(shared: Path, client: httpx.Client) -> None:
    sent = json.loads((shared / "recorded" / "000-sdk-5.0.4-wire.json").read_bytes())["sent"][0]
    body = ParseDict(sent["decoded"], ExportTraceServiceRequest()).SerializeToString()
    names = ("content-type", "x-langfuse-sdk-name", "x-langfuse-sdk-version", "x-langfuse-ingestion-version")
    headers = {name: sent["headers"][name] for name in names} | {"content-encoding": "gzip"}
    answer = client.post(OTLP_ROUTE, content=gzip.compress(body), headers=headers, auth=KEYS)
    assert answer.status_code == sent["status"]
    assert comparable(answer.json()) == comparable(json.loads(sent["response"]))

    (recorded,) = (recording for recording in load(shared) if recording.number == 9)
    groups = "core,basic,time,io,metadata,model,usage,prompt,metrics,trace_context"
    rows = client.get(f"/api/public/v2/observations?fields={groups}", auth=KEYS).json()["data"]
    own = {
        "id",
        "traceId",
        "startTime",
        "endTime",
        "parentObservationId",
        "createdAt",
        "updatedAt",
        "latency",
    }
    by_name = {row["name"]: {key: row[key] for key in row.keys() - own} for row in rows}
    expected = {row["name"]: {key: row[key] for key in row.keys() - own} for row in recorded.rows}
    for row in [*by_name.values(), *expected.values()]:
        del row["metadata"]["resourceAttributes.service.instance.id"]
    assert by_name == comparable(expected)


class Replay:
    """The exchanges so far: what was sent, and where the answers differ from the recorded ones."""

    def __init__(self, recordings: list[Recording], server: DevServer, client: httpx.Client) -> None:
        self.differences: list[str] = []
        self.count = 0
        self._server = server
        self._client = client
        self._stored: Counter[tuple[str, str]] = Counter()
        self._seen: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for recording in recordings:
            for row in recording.rows:
                self._seen.setdefault((row["traceId"], row["id"]), []).append(row)

    def exchange(self, recording: Recording) -> None:
        """Ask as recorded, after storing what the answer shows but no recorded request sent."""
        self._store_unseen(recording)
        headers = {key: value for key, value in recording.headers.items() if key != "Authorization"}
        if "Authorization" in recording.headers:
            known = "Basic " + base64.b64encode(":".join(KEYS).encode()).decode()
            headers["Authorization"] = CREDENTIALS.get(recording.number, known)
        if recording.number in FATES:
            self._server.faults.add(FATES[recording.number])
        answer = self._client.request(recording.method, recording.path, headers=headers, content=recording.content)
        self._server.faults.clear()
        if recording.is_export and recording.number not in FATES and answer.is_success:
            self._stored.update(sent_spans(recording.content))
        self.count += 1
        self._compare(recording, answer)

    def _store_unseen(self, recording: Recording) -> None:
        copies: Counter[tuple[str, str]] = Counter()
        for row in reversed(recording.rows):
            key = (row["traceId"], row["id"])
            copies[key] += 1
            if copies[key] > self._stored[key]:
                same = [seen for seen in self._seen[key] if seen.get("name") == row.get("name", seen.get("name"))]
                self._store(richest(same), key)
        if recording.number in UNSEEN_ROWS:
            row = UNSEEN_ROWS[recording.number]
            self._store(row, (row["traceId"], row["id"]))

    def _store(self, row: Any, key: tuple[str, str]) -> None:
        body = export_for(row, UNSEEN_ATTRIBUTES.get(key[1], {}))
        self._client.post(OTLP_ROUTE, json=body, auth=KEYS).raise_for_status()
        self._stored[key] += 1

    def _compare(self, recording: Recording, answer: httpx.Response) -> None:
        pairs: list[tuple[str, Any, Any]] = [
            ("status", recording.status, answer.status_code),
            ("content type", recording.media_type, answer.headers["content-type"]),
        ]
        if not recording.media_type.startswith("text/html"):  # the page of a web framework
            # as text: field order counts too
            pairs.append(("body", json.dumps(comparable(recording.body)), json.dumps(comparable(answer.json()))))
        for what, expected, found in pairs:
            if expected != found:
                self.differences.append(f"{recording.name} {what}:\n  recorded {expected}\n  answered {found}")


def comparable(body: Any) -> Any:
    """An answer without what is different each time: times of storing and the internals of a queue job."""
    if isinstance(body, list):
        return [comparable(item) for item in body]
    if not isinstance(body, dict):
        return OUR_NAMES.get(body, body) if isinstance(body, str) else body
    if body.get("name") == "otel-ingestion-job":
        payload = body["data"]["payload"]
        payload["data"] = {key: value for key, value in payload["data"].items() if key != "fileKey"}
        return {"keys": sorted(body), "payload": {key: comparable(item) for key, item in payload.items()}}
    return {key: comparable(item) for key, item in body.items() if key not in ("createdAt", "updatedAt")}
