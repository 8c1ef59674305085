"""`python -m orchestrator` is `tapath`."""

from orchestrator.cli import main

main()
