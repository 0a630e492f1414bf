"""The simulated world in MuJoCo's XML: a 7-joint arm with a gripper on a table, a block, and sensors.

The arm is our own design, three roll-pitch pairs and a flange roll (shoulder, elbow, wrist), all lengths in metres:
shoulder at 0.34, upper arm 0.42, forearm 0.40, wrist to fingertips 0.27. Nothing holds the block but the friction
of two fingers: there is no weld and no equality on it.
"""

from __future__ import annotations

JOINTS = tuple(f"joint{i}" for i in range(1, 8))
TORQUE_LIMITS = (120.0, 120.0, 80.0, 80.0, 40.0, 40.0, 20.0)
"""What the joint motors give at most, in N m."""

HOME = (0.0, 0.25, 0.0, 1.70, 0.0, 1.1916, 0.0)
"""Joint angles in radians with the gripper pointing straight down (the three pitches add up to pi)."""

GRIPPER_OPEN = 0.04
GRIP_FORCE = 25.0
"""Most opening of one finger in metres, and what one finger's motor gives at most, in N."""

BLOCK_HALF_HEIGHT = 0.03
BLOCK_MASS = 0.35

TIMESTEP = 0.001
"""Seconds a physics step takes: the 1 kHz of the force sensor."""

_MOTORS = "\n    ".join(
    f'<motor name="{joint}" joint="{joint}" ctrlrange="-{limit} {limit}"/>'
    for joint, limit in zip(JOINTS, TORQUE_LIMITS, strict=True)
)

MODEL = f"""
<mujoco model="seven-joint arm">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{TIMESTEP}" integrator="implicitfast" cone="elliptic" impratio="10"/>

  <default>
    <geom density="0"/>
    <joint damping="1.0" armature="0.1"/>
    <default class="shell">
      <geom type="capsule" contype="0" conaffinity="0" rgba=".85 .87 .90 1"/>
    </default>
    <default class="finger">
      <joint type="slide" axis="0 1 0" range="0 {GRIPPER_OPEN}" damping="20" armature="0.05"/>
      <position kp="2000" forcerange="-{GRIP_FORCE} {GRIP_FORCE}" ctrlrange="-0.01 {GRIPPER_OPEN}"/>
    </default>
  </default>

  <worldbody>
    <light pos="0.4 -0.6 1.8" dir="0 0.3 -1"/>
    <camera name="overview" pos="1.5 -1.2 1.0" xyaxes="0.62 0.78 0 -0.38 0.30 0.87"/>
    <geom name="floor" type="plane" pos="0 0 -0.75" size="3 3 0.1" rgba=".3 .32 .35 1"/>
    <geom name="table" type="box" pos="0.35 0 -0.02" size="0.55 0.55 0.02" friction="0.9" rgba=".62 .50 .38 1"/>

    <body name="block" pos="0.5 -0.2 {BLOCK_HALF_HEIGHT}">
      <freejoint name="block"/>
      <geom name="block" type="box" size="0.02 0.02 {BLOCK_HALF_HEIGHT}" mass="{BLOCK_MASS}" condim="4"
            friction="1.0 0.01 0.001" rgba=".85 .25 .2 1"/>
    </body>

    <body name="base">
      <geom class="shell" fromto="0 0 0.03 0 0 0.14" size="0.075"/>
      <body name="link1" pos="0 0 0.16">
        <joint name="joint1" axis="0 0 1" range="-2.9 2.9"/>
        <inertial pos="0 0 0.09" mass="3.6" diaginertia="0.018 0.018 0.009"/>
        <geom class="shell" fromto="0 0 0 0 0 0.16" size="0.065"/>
        <body name="link2" pos="0 0 0.18">
          <joint name="joint2" axis="0 1 0" range="-2.0 2.0"/>
          <inertial pos="0 0 0.10" mass="3.4" diaginertia="0.020 0.020 0.008"/>
          <geom class="shell" fromto="0 0 0 0 0 0.19" size="0.06"/>
          <body name="link3" pos="0 0 0.20">
            <joint name="joint3" axis="0 0 1" range="-2.9 2.9"/>
            <inertial pos="0 0 0.11" mass="2.6" diaginertia="0.016 0.016 0.006"/>
            <geom class="shell" fromto="0 0 0 0 0 0.20" size="0.055"/>
            <body name="link4" pos="0 0 0.22">
              <joint name="joint4" axis="0 1 0" range="-0.1 2.5"/>
              <inertial pos="0 0 0.10" mass="2.4" diaginertia="0.012 0.012 0.005"/>
              <geom class="shell" fromto="0 0 0 0 0 0.19" size="0.05"/>
              <body name="link5" pos="0 0 0.20">
                <joint name="joint5" axis="0 0 1" range="-2.9 2.9"/>
                <inertial pos="0 0 0.10" mass="1.8" diaginertia="0.009 0.009 0.004"/>
                <geom class="shell" fromto="0 0 0 0 0 0.18" size="0.045"/>
                <body name="link6" pos="0 0 0.20">
                  <joint name="joint6" axis="0 1 0" range="-0.5 2.6" armature="0.05"/>
                  <inertial pos="0 0 0.03" mass="1.2" diaginertia="0.003 0.003 0.002"/>
                  <geom class="shell" fromto="0 0 0 0 0 0.06" size="0.042"/>
                  <body name="link7" pos="0 0 0.09">
                    <joint name="joint7" axis="0 0 1" range="-2.9 2.9" armature="0.02"/>
                    <inertial pos="0 0 0.02" mass="0.5" diaginertia="0.0008 0.0008 0.0005"/>
                    <geom class="shell" type="cylinder" fromto="0 0 0 0 0 0.04" size="0.04"/>
                    <body name="hand" pos="0 0 0.05">
                      <inertial pos="0 0 0.03" mass="0.5" diaginertia="0.0009 0.0006 0.0008"/>
                      <geom class="shell" type="box" pos="0 0 0.03" size="0.025 0.09 0.03" rgba=".25 .27 .30 1"/>
                      <site name="wrist" size="0.004"/>
                      <site name="imu" pos="0 0 0.02" size="0.004"/>
                      <site name="tcp" pos="0 0 0.13" size="0.004" rgba="1 1 0 1"/>
                      <camera name="rgb" pos="0.06 0 0.03" xyaxes="0 1 0 1 0 0" fovy="60"/>
                      <body name="finger1" pos="0 0.002 0.06">
                        <joint name="finger1" class="finger"/>
                        <inertial pos="0 0.006 0.04" mass="0.06" diaginertia="4e-5 4e-5 1e-5"/>
                        <geom name="finger1" type="box" pos="0 0.006 0.045" size="0.01 0.006 0.045" condim="4"
                              friction="1.2 0.02 0.001" rgba=".15 .15 .17 1"/>
                      </body>
                      <body name="finger2" pos="0 -0.002 0.06" quat="0 0 0 1">
                        <joint name="finger2" class="finger"/>
                        <inertial pos="0 0.006 0.04" mass="0.06" diaginertia="4e-5 4e-5 1e-5"/>
                        <geom name="finger2" type="box" pos="0 0.006 0.045" size="0.01 0.006 0.045" condim="4"
                              friction="1.2 0.02 0.001" rgba=".15 .15 .17 1"/>
                      </body>
                    </body>
                  </body>
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>
  </worldbody>

  <actuator>
    {_MOTORS}
    <position name="finger1" class="finger" joint="finger1"/>
    <position name="finger2" class="finger" joint="finger2"/>
  </actuator>

  <sensor>
    <accelerometer name="accel" site="imu"/>
    <gyro name="gyro" site="imu"/>
    <force name="force" site="wrist"/>
    <torque name="torque" site="wrist"/>
  </sensor>
</mujoco>
"""
