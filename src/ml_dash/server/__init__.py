"""The server: one catalog of experiments over HTTP (`create_app`), a local folder or a database behind it."""
