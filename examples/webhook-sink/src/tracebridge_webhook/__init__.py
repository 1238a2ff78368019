"""A tracebridge sink that posts an agent's spans as JSON events to a webhook."""
