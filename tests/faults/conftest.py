"""An MLflow database with its tables, and one of a test's own."""

from tests.orchestrator.conftest import fresh, uri

__all__ = ["fresh", "uri"]
