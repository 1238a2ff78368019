"""What a sink type says before anything is sent, and what must be pure about its sink."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing

import msgspec
from hypothesis import example, given

from tracebridge.registry import Registry
from tracebridge.span import Span
from tracebridge.testing.contract.backend import BackendUnderTest
from tracebridge.testing.contract.io_watch import connections, io_of_this_thread
from tracebridge.testing.contract.samples import batches, every_kind, law_settings, sample
from tracebridge.testing.strategies import spans

_LOADED = "import importlib, json, sys; importlib.import_module(sys.argv[1]); print(json.dumps(sorted(sys.modules)))"


class DeclarationCases:
    """`SinkType`, `Capabilities`, and `Sink.encode` and `Sink.join`."""

    examples = 25
    """How many generated batches each law is tried on."""

    def test_it_is_a_sink_type(self, backend: BackendUnderTest) -> None:
        """It has every member, and its settings are a record."""
        found = Registry({"under-test": lambda: backend.sink_type}).find("under-test")
        assert issubclass(found.settings, msgspec.Struct)
        assert isinstance(backend.settings, found.settings)
        assert isinstance(found.extra, str)
        fields = {field.encode_name for field in msgspec.structs.fields(found.settings)}
        assert set(found.environment) <= fields, "environment variables fill settings that there are"

    def test_importing_it_loads_no_vendor_package(self, backend: BackendUnderTest) -> None:
        """An agent's process imports the sink type to read its configuration, and nothing else of it."""
        module = type(backend.sink_type).__module__
        path = os.pathsep.join(filter(None, sys.path))
        ran = subprocess.run(
            [sys.executable, "-c", _LOADED, module],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        loaded = {name.partition(".")[0] for name in json.loads(ran.stdout)}
        assert loaded & set(backend.vendor_packages) == set()

    def test_what_it_declares_is_possible(self, backend: BackendUnderTest) -> None:
        """Its capabilities make sense together."""
        declared = backend.capabilities
        assert declared.max_request_bytes > 0
        assert declared.max_request_spans > 0
        assert declared.visibility_lag_s >= 0
        names = [loss.name for loss in declared.losses]
        assert len(set(names)) == len(names), "each loss has a name of its own"
        assert all(loss.name and loss.words for loss in declared.losses)

    def test_it_declares_the_same_every_time(self, backend: BackendUnderTest) -> None:
        """Another process, which ships or validates, must come to the same."""
        one, other = backend.capabilities, backend.capabilities
        assert msgspec.structs.replace(one, losses=()) == msgspec.structs.replace(other, losses=())
        assert [loss.name for loss in one.losses] == [loss.name for loss in other.losses]
        assert backend.sink_type.endpoint(backend.settings) == backend.sink_type.endpoint(backend.settings)

    def test_declaring_and_opening_make_no_connection(self, backend: BackendUnderTest) -> None:
        """A backend that is away keeps no agent from starting."""
        with io_of_this_thread() as seen:
            declared = backend.sink_type.capabilities(backend.settings)
            backend.sink_type.endpoint(backend.settings)
            backend.sink_type.open_sink(backend.settings).close()
            if declared.readable:
                backend.sink_type.open_reader(backend.settings).close()
        assert connections(seen) == []

    def test_its_endpoint_is_told_without_credentials(self, backend: BackendUnderTest) -> None:
        """The endpoint stands in logs, in `tracebridge status` and in the state."""
        endpoint = backend.sink_type.endpoint(backend.settings)
        assert endpoint
        assert [secret for secret in backend.secrets() if secret in endpoint] == []
        assert [secret for secret in backend.secrets() if secret in repr(backend.settings)] == []

    def test_a_loss_applied_twice_is_the_same_as_once(self, backend: BackendUnderTest) -> None:
        """And it changes no span that it is given."""
        losses = backend.capabilities.losses

        @law_settings(self.examples)
        @given(spans())
        def law(span: Span) -> None:
            for loss in losses:
                before = msgspec.json.encode(span)
                once = loss.apply(span)
                assert msgspec.json.encode(span) == before, f"{loss.name} changes what it is given"
                assert loss.apply(once) == once, f"{loss.name} is not idempotent"

        law()

    def test_encoding_gives_the_same_bytes_every_time(self, backend: BackendUnderTest) -> None:
        """What is sent again after a crash, by another process, is what was sent before."""
        one, other = (backend.sink_type.open_sink(backend.settings) for _ in range(2))

        @law_settings(self.examples)
        @given(batches(max_size=4))
        @example(every_kind())
        def law(batch: list[Span]) -> None:
            parts = [one.encode(span) for span in batch]
            assert all(isinstance(part, bytes) for part in parts)
            assert parts == [other.encode(span) for span in batch]
            assert one.join(parts) == one.join(parts) == other.join(parts)

        with closing(one), closing(other):
            law()

    def test_encoding_does_no_io(self, backend: BackendUnderTest) -> None:
        """It is done by the thread that everything else waits for, in the agent's process."""
        sink = backend.sink_type.open_sink(backend.settings)
        with closing(sink):
            # what is imported at the first call is not I/O of the call
            sink.join([sink.encode(sample())])
            with io_of_this_thread() as seen:
                sink.join([sink.encode(sample(f"order {number}")) for number in range(20)])
        assert seen == []

    def test_a_request_is_little_more_than_its_parts(self, backend: BackendUnderTest) -> None:
        """Delivery counts the parts to keep to `max_request_bytes`; one span alone must fit many times over."""
        sink = backend.sink_type.open_sink(backend.settings)
        part = sink.encode(sample())
        sink.close()
        assert 0 < len(part) < backend.capabilities.max_request_bytes / 10

    def test_closing_twice_does_no_harm(self, backend: BackendUnderTest) -> None:
        """Also before anything was sent."""
        sink = backend.sink_type.open_sink(backend.settings)
        sink.close()
        sink.close()
        if backend.capabilities.readable:
            reader = backend.sink_type.open_reader(backend.settings)
            reader.close()
            reader.close()
