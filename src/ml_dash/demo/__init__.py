"""The demo: a simulated arm picks a block and places it, recorded and read back through the public API."""
