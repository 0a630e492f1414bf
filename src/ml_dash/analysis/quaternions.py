"""Rotations between rotations."""

from __future__ import annotations

import numpy as np

from .tables import Floats


def slerp(one: Floats, other: Floats, fraction: Floats) -> Floats:
    """Unit quaternions between pairs of them, shape (n, 4), along the shorter arc; the order of the parts is free.

    Args:
        one, other: shape (n, 4); normalised here; q and -q are the same rotation.
        fraction: shape (n,), 0 gives `one`, 1 gives `other` (up to its sign).

    Returns:
        Shape (n, 4), of norm 1; NaN where a quaternion that has a say is zero or not finite.

    Source: Shoemake 1985; nearly equal quaternions go straight, where the arc's sine has no digits left.
    """
    one, other = _unit(one), _unit(other)
    start = np.flatnonzero(fraction == 0)  # where the other side, be it NaN, has no say
    other[start] = one[start]
    cosine = np.einsum("ij,ij->i", one, other)
    sign = np.where(cosine < 0, -1.0, 1.0)
    cosine = np.minimum(np.abs(cosine), 1.0)
    angle = np.arccos(cosine)
    close = cosine > 1 - 1e-9
    sine = np.where(close, 1.0, np.sin(angle))
    of_one = np.where(close, 1 - fraction, np.sin((1 - fraction) * angle) / sine)
    of_other = np.where(close, fraction, np.sin(fraction * angle) / sine) * sign
    return _unit(of_one[:, None] * one + of_other[:, None] * other)


def _unit(values: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        norm = np.sqrt(np.einsum("ij,ij->i", values, values))
        unit: Floats = values / norm[:, None]
    return unit


def rotate(turns: Floats, vector: Floats) -> Floats:
    """A vector, shape (3,), turned by each quaternion in the order w, x, y, z, shape (n, 4): shape (n, 3)."""
    unit = _unit(turns)
    real, imaginary = unit[:, :1], unit[:, 1:]
    twice = 2 * np.cross(imaginary, vector)
    turned: Floats = vector + real * twice + np.cross(imaginary, twice)
    return turned
