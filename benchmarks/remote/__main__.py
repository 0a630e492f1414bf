"""`python -m benchmarks.remote`."""

from benchmarks.remote.run import main

raise SystemExit(main())
