"""Speed, size and safety of ml_dash beside its peers: `python -m benchmarks` (README.md says how it measures)."""
