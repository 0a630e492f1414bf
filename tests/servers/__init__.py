"""Real servers for the tests, without containers: a MongoDB-wire server and an S3 server.

    python -m tests.servers build      build both (cached in `.cache/servers`), needing only Python and the registries
    python -m tests.servers start      run both until Ctrl-C and print how to reach them

In tests: `pytest_plugins = ["servers.fixtures"]`, then the fixtures `mongo_server` and `s3_server`. With
`ML_DASH_TEST_MONGO_URI` and `ML_DASH_TEST_S3_URL` (plus the usual `AWS_*` variables) set, those servers are used
instead and nothing is built. The report's head says which servers a run used.
"""
