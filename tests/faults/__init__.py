"""Faults and abuse: what a crash, a full disk, damage, a fork or a signal must not cost (`docs/reliability.md`).

pytest tests/faults                      the sizes of CI
python -m tests.faults --long            the long run, with figures
python -m tests.faults --seed 7          other random choices; a failure names the seed it came from
"""
