"""Recordings of others into an experiment: TUM, EuRoC, CSV, JSON lines, Parquet, NumPy `.npz`.

with Experiment("alice/slam/fr1-xyz").run as exp:
    import_file(exp, "freiburg1_xyz-groundtruth.txt", Options(topic="camera/pose"))
"""

from .model import Options, Report, TopicReport
from .run import FORMATS, Prepared, import_file, inspect_file

__all__ = ["FORMATS", "Options", "Prepared", "Report", "TopicReport", "import_file", "inspect_file"]
