"""An embedded development backend: OTLP in, Langfuse's, Jaeger's and Tempo's read APIs out, on loopback.

It knows nothing of tracebridge's adapters or mappings: it behaves as the real backends were recorded to do, and
Tempo as it is documented.
"""

from tracebridge.devserver.errors import DevServerError
from tracebridge.devserver.server import PUBLIC_KEY, SECRET_KEY, DevServer, Settings, serve
from tracebridge.devserver.tempo_api import Tempo

__all__ = ["PUBLIC_KEY", "SECRET_KEY", "DevServer", "DevServerError", "Settings", "Tempo", "serve"]
