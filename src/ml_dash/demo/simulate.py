"""The physics of the demo as a stream of samples; it knows nothing of recording.

Needs MuJoCo and NumPy (extra `demo`). SI units; quaternions are (w, x, y, z), MuJoCo's order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import mujoco
import numpy as np

from .arm import BLOCK_HALF_HEIGHT, HOME, JOINTS, MODEL, TIMESTEP
from .control import InverseKinematics, JointControl, Phase, Pose, Vector, block_grasp, plan, references

RATES_HZ = {
    "robot/state": 100,
    "robot/effort": 100,
    "robot/gripper": 100,
    "object/pose": 100,
    "sensors/imu": 200,
    "sensors/force": 1000,
    "camera/rgb": 30,
}
"""The sampled topics; `task/phase` comes on top, an entry where a phase begins."""

CYCLE_S = 10.0
CONTROL_PERIOD = 0.01
FORCE_NOISE_N, TORQUE_NOISE_NM, ACCEL_NOISE, GYRO_NOISE = 0.05, 0.002, 0.03, 0.002


class Sample(NamedTuple):
    """One entry to be recorded: plain lists and numbers, true simulated time in seconds."""

    topic: str
    timestamp: float
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Placement:
    """How one cycle ended, measured on the simulated block itself (metres, radians)."""

    lifted_m: float
    miss_m: float
    tilt_rad: float

    @property
    def succeeded(self) -> bool:
        """The block was carried through the air and stands upright within 1 cm of its target."""
        return self.lifted_m > 0.10 and self.miss_m < 0.01 and self.tilt_rad < 0.05


class PickAndPlace:
    """The arm carries the block from side to side, once in each cycle of 10 s.

    Args:
        cycles: how often; the simulation ends by itself.
        seed: of where the block stands, where it shall go, and the sensors' noise. Same seed, same samples.
        model: the world in MuJoCo's XML.
    """

    def __init__(self, cycles: int = 1, seed: int = 0, model: str = MODEL) -> None:
        self.cycles = cycles
        self.placements: list[Placement] = []
        self._rng = np.random.default_rng(seed)
        self._model = mujoco.MjModel.from_xml_string(model)
        self._data = mujoco.MjData(self._model)
        self._control = JointControl(self._model)
        self._kinematics = InverseKinematics(self._model)
        self._sensors = _Sensors(self._model, self._data, self._rng)
        self._step = 0
        self._q = np.array(HOME)
        self._start()

    @property
    def seconds(self) -> float:
        """The simulated time of the whole, in seconds."""
        return self.cycles * CYCLE_S

    def samples(self) -> Iterator[Sample]:
        """Every sample in order of time; `placements` is complete when this ends."""
        home = Pose(self._sensors.tcp_position(), 0.0)
        for cycle in range(self.cycles):
            position, yaw = self._sensors.block_pose()
            target = Pose(*self._somewhere(-math.copysign(1.0, position[1])))
            phases = plan(block_grasp(position, yaw), block_grasp(*target), home)
            highest = position[2]
            for sample in self._follow(phases, home, cycle):
                highest = max(highest, self._sensors.block_height())
                yield sample
            self.placements.append(self._placement(highest - position[2], target))

    def _start(self) -> None:
        data = self._data
        data.qpos[self._sensors.arm_qpos] = self._q
        position, yaw = self._somewhere(-1.0)
        data.joint("block").qpos = [*position, math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]
        for finger in ("finger1", "finger2"):
            data.joint(finger).qpos = data.actuator(finger).ctrl = 0.04
        mujoco.mj_forward(self._model, data)

    def _somewhere(self, side: float) -> tuple[Vector, float]:
        """A random place for the block on one side of the table (-1 right, 1 left), and its yaw."""
        x, y = self._rng.uniform((0.44, 0.14), (0.56, 0.26))
        return np.array([x, side * y, BLOCK_HALF_HEIGHT]), float(self._rng.uniform(-0.6, 0.6))

    def _follow(self, phases: list[Phase], start: Pose, cycle: int) -> Iterator[Sample]:
        for reference in references(phases, start, CONTROL_PERIOD):
            if reference.starts:
                yield Sample("task/phase", self._now(), {"phase": reference.phase.name, "cycle": cycle})
            goal = self._kinematics.solve(self._q, reference.goal)
            self._data.ctrl[self._sensors.finger_actuators] = reference.opening
            yield from self._move(goal)

    def _move(self, goal: Vector) -> Iterator[Sample]:
        """One control period: the joints' reference runs evenly from the last goal to this one."""
        steps = round(CONTROL_PERIOD / TIMESTEP)
        speed = (goal - self._q) / CONTROL_PERIOD
        for i in range(steps):
            yield from self._advance(self._q + speed * (i * TIMESTEP), speed)
        self._q = goal

    def _advance(self, q: Vector, qd: Vector) -> Iterator[Sample]:
        """One physics step: poses are sampled before it, forces within it, all at its own time."""
        data, now = self._data, self._now()
        mujoco.mj_step1(self._model, data)
        data.ctrl[self._sensors.arm_actuators] = self._control.torques(data, q, qd)
        yield from self._sensors.poses(self._step, now)
        mujoco.mj_step2(self._model, data)
        yield from self._sensors.forces(self._step, now)
        self._step += 1

    def _now(self) -> float:
        return self._step / round(1 / TIMESTEP)

    def _placement(self, lifted: float, target: Pose) -> Placement:
        miss = self._sensors.block_pose()[0] - target.position
        upright = self._data.body("block").xmat[8]
        return Placement(float(lifted), float(np.hypot(*miss[:2])), math.acos(min(1.0, upright)))


class _Sensors:
    """What the robot measures, read out of the simulation at each topic's own rate."""

    def __init__(self, model: Any, data: Any, rng: np.random.Generator) -> None:
        self._data, self._rng = data, rng
        self.arm_qpos = np.array([model.joint(name).qposadr[0] for name in JOINTS])
        self._arm_dof = np.array([model.joint(name).dofadr[0] for name in JOINTS])
        self.arm_actuators = np.array([model.actuator(name).id for name in JOINTS])
        self.finger_actuators = np.array([model.actuator(name).id for name in ("finger1", "finger2")])
        self._fingers = np.array([model.joint(name).qposadr[0] for name in ("finger1", "finger2")])
        self._tcp, self._camera, self._block = data.site("tcp"), data.camera("rgb"), data.body("block")
        self._accel, self._gyro = data.sensor("accel").data, data.sensor("gyro").data
        self._force, self._torque = data.sensor("force").data, data.sensor("torque").data
        self._ee_quat, self._camera_quat = np.array([0.0, 0.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0, 0.0])
        self._frame = 0

    def tcp_position(self) -> Vector:
        """Where the fingertips are (3)."""
        return np.array(self._tcp.xpos)

    def block_pose(self) -> tuple[Vector, float]:
        """Where the block is (3), and its yaw."""
        x, y = self._block.xmat[0], self._block.xmat[3]
        return np.array(self._block.xpos), math.atan2(y, x)

    def block_height(self) -> float:
        """How high the block's centre is."""
        return float(self._block.xpos[2])

    def poses(self, step: int, now: float) -> Iterator[Sample]:
        """What depends on positions and speeds."""
        data = self._data
        if step % 10 == 0:
            self._ee_quat = _quaternion(self._tcp.xmat, self._ee_quat)
            state = {"q": data.qpos[self.arm_qpos].tolist(), "qd": data.qvel[self._arm_dof].tolist()}
            pose = {"ee_pos": self._tcp.xpos.tolist(), "ee_quat": self._ee_quat.tolist()}
            yield Sample("robot/state", now, state | pose)
            yield Sample("object/pose", now, {"pos": self._block.xpos.tolist(), "quat": self._block.xquat.tolist()})
        if step * RATES_HZ["camera/rgb"] >= self._frame * 1000:
            yield Sample("camera/rgb", now, self._picture())
            self._frame += 1

    def forces(self, step: int, now: float) -> Iterator[Sample]:
        """What depends on accelerations: within MuJoCo's step they belong to the time before it."""
        data = self._data
        # MuJoCo gives what holds the hand; the entry says what the hand does to the wrist: its weight is a positive fz.
        force, torque = self._noisy(-self._force, FORCE_NOISE_N), self._noisy(-self._torque, TORQUE_NOISE_NM)
        yield Sample("sensors/force", now, dict(zip(("fx", "fy", "fz", "tx", "ty", "tz"), force + torque, strict=True)))
        if step % 5 == 0:
            imu = {"accel": self._noisy(self._accel, ACCEL_NOISE), "gyro": self._noisy(self._gyro, GYRO_NOISE)}
            yield Sample("sensors/imu", now, imu)
        if step % 10 == 0:
            yield Sample("robot/effort", now, {"tau": data.actuator_force[self.arm_actuators].tolist()})
            opening, grip = data.qpos[self._fingers].sum(), -data.actuator_force[self.finger_actuators].mean()
            yield Sample("robot/gripper", now, {"position": float(opening), "force": float(grip)})

    def _picture(self) -> dict[str, Any]:
        self._camera_quat = _quaternion(self._camera.xmat, self._camera_quat)
        exposure = 0.008 + 0.004 * self._rng.random()
        pose = {"pos": self._camera.xpos.tolist(), "quat": self._camera_quat.tolist()}
        return {"frame_id": self._frame, "exposure": exposure, "pose": pose}

    def _noisy(self, reading: Vector, deviation: float) -> list[float]:
        return (reading + deviation * self._rng.standard_normal(reading.size)).tolist()  # type: ignore[no-any-return]


def _quaternion(matrix: Vector, previous: Vector) -> Vector:
    """The quaternion of a rotation matrix (9), of the sign that continues the previous one."""
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, matrix)
    return quat if quat @ previous >= 0 else -quat
