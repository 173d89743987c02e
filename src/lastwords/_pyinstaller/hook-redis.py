"""redis-py counts what it does for OpenTelemetry if that is there; bundled for us alone, it need not be.

A program that imports OpenTelemetry itself gets it. Without this, a target over Redis brings every package along that
OpenTelemetry and its plugins know: Sentry, Django, a test suite.
"""

excludedimports = ["opentelemetry"]
