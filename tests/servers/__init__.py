"""Real servers for the tests: Jaeger and an OpenTelemetry Collector, built from their Go modules by `make servers`."""
