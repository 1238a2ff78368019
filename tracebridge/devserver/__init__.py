"""An embedded development backend: OTLP in, Langfuse's and Jaeger's read APIs out, on loopback.

It knows nothing of tracebridge's adapters or mappings: it behaves as the real backends were recorded to do.
"""

from tracebridge.devserver.errors import DevServerError
from tracebridge.devserver.server import PUBLIC_KEY, SECRET_KEY, DevServer, Settings, serve

__all__ = ["PUBLIC_KEY", "SECRET_KEY", "DevServer", "DevServerError", "Settings", "serve"]
