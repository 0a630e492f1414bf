"""Remote mode measured: client, server, database and archive. `python -m benchmarks.remote` (README.md beside it)."""
