"""`Chaos`: the processes of the soak, and what happens to them."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import yaml

from soak.place import SmallDisk
from tracebridge.testing import Fault
from tracebridge.testing.faults import FaultPlan

LAG_S: Final = 1.0
"""What the sinks declare."""
LONGEST_LAG_S: Final = 8.0
"""How far the backend is behind at most."""
_AGENTS: Final = 4
_SHIPPERS: Final = 2
_INGESTION: Final = ("POST /api/public/otel/v1/traces", "POST /v1/traces")
_READING: Final = "GET *"
_ATTEMPTS: Final = 12

Arguments = tuple[str, ...]


class _Slot:
    """A process that is started again whenever it ends."""

    def __init__(self, command: Callable[[], Arguments], log: Path) -> None:
        self._command = command
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self._command()], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def stop(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.wait()
            self.process = None

    def freeze(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def keep_alive(self) -> bool:
        """Start it again if it has ended by itself; True if it had."""
        if self.process is not None and self.process.poll() is None:
            return False
        self.start()
        return True


class Chaos:
    """Starts everything, breaks it for a while, and then lets it come to rest."""

    def __init__(self, folder: Path, disk: SmallDisk, choose: random.Random) -> None:
        self.trace_dir = disk.path / "traces"
        self.config = folder / "tracebridge.yaml"
        self.notes = folder / "notes"
        self.did: Counter[str] = Counter()
        self._disk = disk
        self._choose = choose
        self._port = _free_port()
        self._logs = folder
        self._is_full = False
        self._seed = choose.randrange(10**6) * 1000
        self._outside = folder / "external.yaml"
        self._backend = _Slot(
            lambda: ("tracebridge", "devserver", "--port", str(self._port), "--db", str(folder / "backend.sqlite")),
            folder / "backend.log",
        )
        self._agents = [
            _Slot(self._agent_command(self.config if number % 2 else self._outside), folder / "agents.log")
            for number in range(_AGENTS)
        ]
        self._shippers = [
            _Slot(lambda: ("tracebridge", "--config", str(self.config), "ship", "--follow"), folder / "shippers.log")
            for _ in range(_SHIPPERS)
        ]

    def __enter__(self) -> Self:
        self.notes.mkdir()
        url = f"http://127.0.0.1:{self._port}"
        section = {
            "trace_dir": str(self.trace_dir),
            "delivery": "thread",
            "sinks": {
                "langfuse": {
                    "host": url,
                    "public_key": "pk-lf-dev",
                    "secret_key": "sk-lf-dev",
                    "timeout": 3,
                    "visibility_lag": LAG_S,
                },
                "otel": {
                    "endpoint": url,
                    "timeout": 3,
                    "reader": {"type": "jaeger", "url": url, "visibility_lag": LAG_S},
                },
            },
        }
        self.config.write_text(yaml.safe_dump({"agent_trace": section}))
        self._outside.write_text(yaml.safe_dump({"agent_trace": section | {"delivery": "external"}}))
        self._backend.start()
        self._wait_for_backend()
        for slot in (*self._shippers, *self._agents):
            slot.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for slot in (*self._agents, *self._shippers, self._backend):
            slot.stop(signal.SIGKILL)

    def run(self, seconds: float) -> None:
        """Break things at random."""
        actions: list[tuple[int, Callable[[], None]]] = [
            (6, self._kill_an_agent),
            (6, self._kill_a_shipper),
            (2, self._freeze_something),
            (8, self._other_faults),
            (2, self._kill_the_backend),
            (3, self._fill_or_empty_the_disk),
        ]
        weights = [weight for weight, _ in actions]
        began = said = time.monotonic()
        while time.monotonic() - began < seconds:
            (_, action) = self._choose.choices(actions, weights)[0]
            action()
            for slot in (*self._agents, *self._shippers):
                if slot.keep_alive():
                    self.did["processes that ended by themselves"] += 1
            if time.monotonic() - said > 15:
                said = time.monotonic()
                print(f"  {said - began:4.0f} s: {dict(self.did)}", flush=True)
            # the rhythm of the trouble: nothing waits for this
            time.sleep(self._choose.uniform(0.1, 1.0))

    def settle(self) -> None:
        """Repair everything, end the agents, and ship until nothing is left."""
        self._disk.empty()
        self._set_faults()
        for slot in self._agents:
            slot.stop(signal.SIGKILL)
        for slot in self._shippers:
            slot.stop(signal.SIGTERM)
        for attempt in range(_ATTEMPTS):
            # life goes on: what is sent now tells whether something that was sent before got lost
            self._seed += 1
            self._run("soak.agent", str(self._outside), str(self.notes / f"{self._seed}"), f"{self._seed}", "1")
            shipped = self._run("tracebridge", "--config", str(self.config), "ship", "--patience", "15")
            if shipped == 0:
                print(f"  everything is shipped at attempt {attempt + 1}", flush=True)
                return

    def fall_behind(self) -> None:
        """Let the backend be as far behind as it ever gets."""
        self._set_faults(_behind("POST *", LONGEST_LAG_S))
        self.did["a backend behind with everything"] += 1

    # --- trouble ----------------------------------------------------------------------------------------------------

    def _kill_an_agent(self) -> None:
        self._kill(self._choose.choice(self._agents), "agents killed")

    def _kill_a_shipper(self) -> None:
        self._kill(self._choose.choice(self._shippers), "shippers killed")

    def _kill(self, slot: _Slot, counted_as: str) -> None:
        slot.stop(signal.SIGKILL)
        self.did[counted_as] += 1
        slot.start()

    def _freeze_something(self) -> None:
        slot = self._choose.choice([*self._agents, *self._shippers])
        slot.freeze(signal.SIGSTOP)
        time.sleep(self._choose.uniform(0.2, 4.0))  # for so long it is frozen
        slot.freeze(signal.SIGCONT)
        self.did["processes frozen"] += 1

    def _kill_the_backend(self) -> None:
        self._backend.stop(signal.SIGKILL)
        time.sleep(self._choose.uniform(0.0, 2.0))  # for so long it is away
        self._backend.start()
        self._wait_for_backend()
        self.did["backends killed"] += 1

    def _fill_or_empty_the_disk(self) -> None:
        if self._is_full:
            self._disk.empty()
        elif self._disk.is_real:
            self._disk.fill()
            self.did["disks filled"] += 1
        self._is_full = not self._is_full

    def _other_faults(self) -> None:
        choose, route = self._choose, self._choose.choice([*_INGESTION, "POST *"])
        lag_s = choose.uniform(0.0, LAG_S)
        behind_s = choose.uniform(LAG_S, LONGEST_LAG_S)
        faults = {
            "no fault": (),
            "a backend that is away": (Fault(route=route, status=503, headers={"Retry-After": "1"}),),
            "half of all refused": (Fault(route=route, status=429, probability=0.5, seed=choose.randrange(99)),),
            "no answers": (Fault(route=route, reset="after", probability=0.5, seed=choose.randrange(99)),),
            "connections reset": (Fault(route=route, reset="before", probability=0.5, seed=choose.randrange(99)),),
            "answers cut short": (Fault(route=route, truncate=True, every=2),),
            "a late backend": (Fault(route=route, visibility_lag_s=lag_s),),
            "a backend behind with everything": (_behind(route, behind_s),),
            "a slow backend": (Fault(route=route, latency_s=choose.uniform(0.5, 4.0), every=3),),
            "a hanging backend": (Fault(route=route, hang=True, every=4),),
            "a query service that is away": (Fault(route=_READING, status=500),),
        }
        name = choose.choice(list(faults))
        self._set_faults(*faults[name])
        self.did[name] += 1

    # --- the backend ------------------------------------------------------------------------------------------------

    def _set_faults(self, *faults: Fault) -> None:
        body = FaultPlan(faults=faults).to_json()
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/dev/faults", data=body, method="PUT")
        with urllib.request.urlopen(request, timeout=10):
            return

    def _wait_for_backend(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/dev/faults", timeout=2):
                    return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    # --- processes --------------------------------------------------------------------------------------------------

    def _agent_command(self, config: Path) -> Callable[[], Arguments]:
        def command() -> Arguments:
            self._seed += 1
            return "soak.agent", str(config), str(self.notes / f"{self._seed}"), str(self._seed)

        return command

    def _run(self, *arguments: str) -> int:
        with (self._logs / "settling.log").open("ab") as log:
            return subprocess.run([sys.executable, "-m", *arguments], stdout=log, stderr=log, check=False).returncode


def _behind(route: str, seconds: float) -> Fault:
    # a backend catches up in order: nobody could tell what is late from what was lost if it did not
    return Fault(route=route, visibility_lag_s=seconds, in_order=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
