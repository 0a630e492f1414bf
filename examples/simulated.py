"""A small recording to try the other examples on: ten seconds of a simulated arm, in a temporary folder.

python examples/simulated.py

The wrist takes up a load between 4 and 6 s, and its force sensor freezes between 7 and 9.5 s (the doctor finds it). The
other examples record the same where no PREFIX is given.
"""

import math
import random
import tempfile

from ml_dash import Experiment

PREFIX = "demo/arm/simulated"


def record() -> str:
    """Record the arm; returns the root that holds it."""
    root = tempfile.mkdtemp(prefix="ml-dash-example-")
    noise = random.Random(0)
    with Experiment(PREFIX, dash_root=root).run as exp:
        exp.params.set(quaternions="wxyz", rates_hz={"robot/state": 100, "sensors/force": 200})
        frozen = [0.0, 0.0, 1.0]
        for number in range(2000):
            t = number / 200
            load = 15.0 if 4 <= t < 6 else 1.0
            if not 7 <= t < 9.5:
                frozen = [noise.gauss(0, 0.1), noise.gauss(0, 0.1), load + noise.gauss(0, 0.1)]
            exp.tracks("sensors/force").append(f=frozen, _ts=t)
            if number % 2 == 0:
                exp.tracks("robot/state").append(
                    q=[math.sin(t + joint) for joint in range(7)],
                    ee_pos=[math.cos(t) / 2, math.sin(t) / 2, 0.3 + t / 50],
                    ee_quat=[math.cos(t / 2), 0.0, 0.0, math.sin(t / 2)],
                    _ts=t,
                )
            if number % 7 == 0:
                exp.tracks("camera").append(frame=number // 7, exposure_s=0.01, _ts=t)
        exp.log("done", entries=2000)
    print(f"recorded {PREFIX} below {root}; to look at it: ml-dash ls {PREFIX} -r {root}\n")
    return root


if __name__ == "__main__":
    record()
