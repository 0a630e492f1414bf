"""Remote mode measured: client, server, database, archive. `python -m benchmarks.remote`; `docs/scale.md` says how."""
