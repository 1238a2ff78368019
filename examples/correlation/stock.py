"""The second service: how many of an article there are. `python stock.py PORT`."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from telemetry import set_up

app = FastAPI()


@app.get("/stock/{article}")
def stock(article: str) -> dict[str, int]:
    """An answer from the shelf."""
    return {article: 3}


if __name__ == "__main__":
    set_up("stock")
    FastAPIInstrumentor.instrument_app(app)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
