"""Moving the arm: a pick-and-place plan, its smooth reference, inverse kinematics and joint torques.

Needs MuJoCo and NumPy (extra `demo`). Positions in metres, angles in radians, torques in N m, in the world's frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from .arm import BLOCK_HALF_HEIGHT, GRIPPER_OPEN, HOME, JOINTS, TORQUE_LIMITS

Vector = NDArray[np.float64]

CLOSED = -0.01
"""Commanded opening of a finger that presses: below any block's width, so that the motor's limit sets the force."""
CLEARANCE = 0.18
"""How far above the table the block is carried."""


class Pose(NamedTuple):
    """A place for the gripper, which always points down: position, and rotation about the vertical."""

    position: Vector
    yaw: float


class Phase(NamedTuple):
    """A part of the plan: reach `goal` within `seconds`, fingers driven to `opening`."""

    name: str
    seconds: float
    goal: Pose
    opening: float


class Reference(NamedTuple):
    """Where the gripper ought to be at one instant."""

    phase: Phase
    starts: bool
    goal: Pose
    opening: float


def plan(pick: Pose, place: Pose, home: Pose) -> list[Phase]:
    """The phases of one cycle, 10 s in all: from home to the block, to its place, and home again."""
    above_pick, above_place = _raised(pick), _raised(place)
    return [
        Phase("reach", 1.6, above_pick, GRIPPER_OPEN),
        Phase("descend", 1.1, pick, GRIPPER_OPEN),
        Phase("grasp", 0.6, pick, CLOSED),
        Phase("lift", 1.1, above_pick, CLOSED),
        Phase("carry", 2.0, above_place, CLOSED),
        Phase("lower", 1.1, place, CLOSED),
        Phase("release", 0.5, place, GRIPPER_OPEN),
        Phase("retreat", 0.8, above_place, GRIPPER_OPEN),
        Phase("return", 1.2, home, GRIPPER_OPEN),
    ]


def references(phases: list[Phase], start: Pose, period: float) -> Iterator[Reference]:
    """The reference at every `period` seconds, moving along minimum-jerk lines from phase to phase."""
    opening = phases[-1].opening
    for phase in phases:
        ticks = round(phase.seconds / period)
        for tick in range(ticks):
            done = _minimum_jerk((tick + 1) / ticks)
            goal = Pose(
                start.position + done * (phase.goal.position - start.position),
                start.yaw + done * (phase.goal.yaw - start.yaw),
            )
            yield Reference(phase, tick == 0, goal, opening + done * (phase.opening - opening))
        start, opening = phase.goal, phase.opening


def block_grasp(position: Vector, yaw: float) -> Pose:
    """How to grasp the block standing at `position`: the nearest of the four square ways round."""
    quarter = math.pi / 2
    return Pose(position + np.array([0.0, 0.0, 0.3 * BLOCK_HALF_HEIGHT]), (yaw + quarter / 2) % quarter - quarter / 2)


def _raised(pose: Pose) -> Pose:
    return Pose(np.array([*pose.position[:2], CLEARANCE]), pose.yaw)


def _minimum_jerk(s: float) -> float:
    return s * s * s * (10 - 15 * s + 6 * s * s)


class InverseKinematics:
    """Joint angles for a pose, by damped least squares from the previous answer, near to the home posture."""

    def __init__(self, model: Any) -> None:
        self._model, self._data = model, mujoco.MjData(model)
        self._tcp = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, "tcp")
        joints = [model.joint(name) for name in JOINTS]
        self._qpos = np.array([joint.qposadr[0] for joint in joints])
        self._dof = np.array([joint.dofadr[0] for joint in joints])
        self._lower, self._upper = np.array([joint.range for joint in joints]).T
        self._jacobian = np.zeros((6, model.nv))
        self._home = np.array(HOME)

    def solve(self, q: Vector, goal: Pose, iterations: int = 3) -> Vector:
        """Joint angles (7) that bring the fingertips to `goal`, starting from the angles `q` (7)."""
        for _ in range(iterations):
            error, jacobian = self._error(q, goal)
            inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + 1e-5 * np.eye(6))
            posture = 0.02 * (self._home - q)
            step = inverse @ error + posture - inverse @ (jacobian @ posture)
            q = np.clip(q + step, self._lower, self._upper)
        return q

    def _error(self, q: Vector, goal: Pose) -> tuple[Vector, Vector]:
        """What is missing to the goal (metres, then radians, 6) and the Jacobian (6 x 7), at the angles `q`."""
        model, data = self._model, self._data
        data.qpos[self._qpos] = q
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, self._jacobian[:3], self._jacobian[3:], self._tcp)
        actual = data.site_xmat[self._tcp].reshape(3, 3)
        wanted = pointing_down(goal.yaw)
        turn = 0.5 * np.cross(actual.T, wanted.T).sum(axis=0)
        return np.concatenate([goal.position - data.site_xpos[self._tcp], turn]), self._jacobian[:, self._dof]


def pointing_down(yaw: float) -> Vector:
    """The rotation matrix (3 x 3) of a gripper that points down, turned about the vertical by `yaw`."""
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[-c, -s, 0.0], [-s, c, 0.0], [0.0, 0.0, -1.0]])


class JointControl:
    """Computed torque: the joints follow their reference like a critically damped 5 Hz spring."""

    stiffness = (2 * math.pi * 5) ** 2
    damping = 2 * (2 * math.pi * 5)

    def __init__(self, model: Any) -> None:
        joints = [model.joint(name) for name in JOINTS]
        self._model = model
        self._qpos = np.array([joint.qposadr[0] for joint in joints])
        self._dof = np.array([joint.dofadr[0] for joint in joints])
        self._limits = np.array(TORQUE_LIMITS)
        self._acceleration, self._inertial = np.zeros(model.nv), np.zeros(model.nv)

    def torques(self, data: Any, q: Vector, qd: Vector) -> Vector:
        """The torques (7) that bring the joints to the angles `q` at the speeds `qd` (7 each)."""
        position_error, speed_error = q - data.qpos[self._qpos], qd - data.qvel[self._dof]
        self._acceleration[self._dof] = self.stiffness * position_error + self.damping * speed_error
        mujoco.mj_mulM(self._model, data, self._inertial, self._acceleration)
        wanted: Vector = (self._inertial + data.qfrc_bias - data.qfrc_passive)[self._dof]
        limited: Vector = np.clip(wanted, -self._limits, self._limits)
        return limited
