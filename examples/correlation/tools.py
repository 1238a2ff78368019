"""The first service, which the agent's tool calls; it asks the second one. `python tools.py PORT STOCK_URL`."""

from __future__ import annotations

import sys

import httpx
import uvicorn
from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from telemetry import set_up

app = FastAPI()


@app.get("/tools/find/{article}")
def find(article: str) -> dict[str, int]:
    """Ask the service behind this one."""
    found: dict[str, int] = httpx.get(f"{sys.argv[2]}/stock/{article}").raise_for_status().json()
    return found


if __name__ == "__main__":
    set_up("tools")
    FastAPIInstrumentor.instrument_app(app)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
