"""The shape of the package: imports point down, the public names are these, importing does nothing."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ml_dash

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "ml_dash"
FILES = sorted(PACKAGE.rglob("*.py"))

PUBLIC = {
    "Experiment": None,
    "ExperimentNotFound": LookupError,
    "InvalidEntry": ValueError,
    "InvalidPrefix": ValueError,
    "InvalidQuery": ValueError,
    "InvalidTopic": ValueError,
    "InvalidWindow": ValueError,
    "MissingExtra": ImportError,
    "MlDashError": Exception,
    "NotOpen": RuntimeError,
    "StoreCorrupt": OSError,
    "StoreUnavailable": ConnectionError,
    "TrackInfo": None,
    "TrackNotFound": LookupError,
    "Unauthorized": PermissionError,
    "find": None,
    "from_nanoseconds": None,
    "open": None,
}
"""The public names, and for errors the built-in each refines."""

HEAVY = (
    "numpy",
    "pyarrow",
    "pandas",
    "polars",
    "duckdb",
    "pymongo",
    "obstore",
    "click",
    "rich",
    "mujoco",
    "matplotlib",
)


def name_of(file: Path) -> str:
    """A file's name in the table of rooms: `entry.py`, `stores/local.py`, `stores/__init__.py`."""
    return file.relative_to(PACKAGE).as_posix()


def source_of(file: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(file.read_text(encoding="utf-8"))


def levels() -> dict[str, int]:
    """The table "Rooms, bottom up" of `docs/architecture.md`: the level of each file, or of a folder's files."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.split("## Rooms, bottom up")[1].split("\n## ")[0]
    found: dict[str, int] = {}
    for level, names in re.findall(r"^\| (\d) \| ([^|]*)\|", section, re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", names):
            assert found.setdefault(name, int(level)) == int(level), f"{name} is in the table twice"
    return found


LEVELS = levels()


def level_of(name: str) -> int:
    """The level of a file: its own, or its folder's."""
    return LEVELS.get(name, LEVELS.get(name.split("/")[0] + "/", -1))


def runtime_imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that are executed, those inside functions included, those for type checkers not."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        else:
            yield from runtime_imports(node)


def imported_files(file: Path) -> set[str]:
    """The files of the package that a file imports."""
    found: set[str] = set()
    for node in runtime_imports(source_of(file)):
        for module in modules_of(file, node):
            for path in (PACKAGE.joinpath(*module).with_suffix(".py"), PACKAGE.joinpath(*module, "__init__.py")):
                if path.is_file() and (module or not isinstance(node, ast.ImportFrom) or node.level == 0):
                    found.add(name_of(path))
    return found - {name_of(file)}


def modules_of(file: Path, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, ...]]:
    """The modules of the package, as paths in it, that an import statement may mean."""
    if isinstance(node, ast.Import):
        yield from (tuple(one.name.split(".")[1:]) for one in node.names if one.name.split(".")[0] == "ml_dash")
        return
    words = tuple(node.module.split(".")) if node.module else ()
    if node.level == 0:
        if words[:1] != ("ml_dash",):
            return
        base = words[1:]
    else:
        folder = file.relative_to(PACKAGE).parent.parts
        base = (*folder[: len(folder) - node.level + 1], *words)
    yield base
    yield from ((*base, one.name) for one in node.names)


# ---------------------------------------------------------------- imports point down


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_point_down(file: Path) -> None:
    """A file imports from its own level and lower ones; the levels are those of `docs/architecture.md`."""
    own = level_of(name_of(file))
    assert own >= 0, f"{name_of(file)} is not in the table of docs/architecture.md"
    above = {f"{name} ({level_of(name)})" for name in imported_files(file) if level_of(name) > own}
    assert above == set(), f"{name_of(file)} is on level {own} and imports from above: {sorted(above)}"


def test_the_table_names_what_exists() -> None:
    """Every file and folder of the table is there."""
    assert len(LEVELS) > 20
    assert [name for name in LEVELS if not (PACKAGE / name).exists()] == []


def test_imports_have_no_cycles() -> None:
    """Also on one level: no file is imported, over however many others, by what it imports."""
    graph = {name_of(file): imported_files(file) for file in FILES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_an_import_that_points_up_would_be_found() -> None:
    """The check sees relative, absolute, late and `from package import module` imports."""
    lines = [
        "def late():",
        "  from ..experiment import x",
        "import ml_dash.tracks",
        "from .. import view",
        "from . import index",
    ]
    tree = ast.parse("\n".join(lines))
    file = PACKAGE / "stores" / "example.py"
    found = {module for node in runtime_imports(tree) for module in modules_of(file, node)}
    assert {("experiment",), ("tracks",), ("view",), ("stores", "index")} <= found


# ---------------------------------------------------------------- the public names


def test_the_public_names() -> None:
    """Exactly these; each is there, has a docstring, and an error refines the built-in it should."""
    assert sorted(ml_dash.__all__) == sorted(PUBLIC)
    for name, base in PUBLIC.items():
        found = getattr(ml_dash, name)
        assert inspect.getdoc(found), name
        if base is not None:
            assert issubclass(found, ml_dash.MlDashError)
            assert issubclass(found, base)
    assert set(PUBLIC) <= set(dir(ml_dash))
    with pytest.raises(AttributeError, match="has no attribute 'experimentt'"):
        ml_dash.experimentt  # noqa: B018


def test_what_the_user_holds_is_documented() -> None:
    """Every public method and property of what the user holds has a docstring."""
    experiment = ml_dash.Experiment("a/b/c")
    for held in (experiment, experiment.run, experiment.tracks, experiment.metrics, experiment.params, experiment.log):
        for name, member in inspect.getmembers(type(held)):
            if not name.startswith("_") and (callable(member) or isinstance(member, property)):
                assert inspect.getdoc(member), f"{type(held).__name__}.{name}"


def test_the_package_is_typed() -> None:
    """Type checkers of users look at our annotations."""
    assert (PACKAGE / "py.typed").exists()


# ---------------------------------------------------------------- importing does nothing

WATCHED = """
import sys
seen = []
def watch(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork")):
        seen.append(event)
    if event == "open" and arguments[2] & 0o3 and not str(arguments[0]).endswith(".pyc"):
        seen.append(f"open {arguments[0]} for writing")
    if event in ("os.mkdir", "os.remove") and "__pycache__" not in str(arguments[0]):
        seen.append(f"{event} {arguments[0]}")
sys.addaudithook(watch)
"""


def python(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a program with warnings as errors."""
    command = [sys.executable, "-B", "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("names", ["", "Experiment", ", ".join(PUBLIC)])
def test_importing_does_nothing(names: str, tmp_path: Path) -> None:
    """No network, no program, no file, no thread, no word, and nothing heavy, also once the names are used."""
    use = f"from ml_dash import {names}" if names else "import ml_dash"
    done = python(
        f"{WATCHED}\n{use}\nimport threading\n"
        f"assert seen == [], seen\nassert threading.active_count() == 1\n"
        f"loaded = sorted(set(sys.modules) & set({HEAVY!r}))\nassert loaded == [], loaded\n",
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_recording_needs_two_libraries(tmp_path: Path) -> None:
    """With everything but msgspec and orjson missing, a run is recorded, read in every plain format, and silent."""
    done = python(
        "import sys\n"
        "class Nothing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        top = name.partition('.')[0]\n"
        "        if top in sys.stdlib_module_names or top in ('ml_dash', 'msgspec', 'orjson'):\n"
        "            return None\n"
        "        raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Nothing())\n"
        "from ml_dash import Experiment, MissingExtra, open\n"
        "with Experiment('a/b/c', dash_root='root').run as exp:\n"
        "    exp.tracks('x').append(_ts=1.0, q=[1.0, float('nan')]).extend(_ts=[2.0, 3.0], q=[[1], [2]]).flush()\n"
        "    exp.metrics('m').log(a=1)\n    exp.params.set(a=1)\n    exp.log('hi')\n"
        "with open('a/b/c', dash_root='root') as exp:\n"
        "    for name in ('json', 'jsonl', 'mocap'):\n"
        "        assert exp.tracks('x').read(format=name)\n"
        "    assert exp.tracks.list()[0].count == len(exp.tracks('x')) == 3\n"
        "    try:\n        exp.tracks('x').read(format='parquet')\n"
        "    except MissingExtra as error:\n"
        "        assert 'pip install' in str(error) and 'ml-dash[parquet]' in str(error), error\n"
        "    else:\n        raise AssertionError('pyarrow is there')\n",
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---------------------------------------------------------------- habits


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_only_the_command_line_prints(file: Path) -> None:
    """A library that prints is hard to live in: print and writes to stdout are for `cli/` and `demo/`."""
    if name_of(file).split("/")[0] in ("cli", "demo"):
        return
    tree = source_of(file)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"]
    streams = [node for node in ast.walk(tree) if ast.unparse(node) in ("sys.stdout", "sys.stderr")]
    assert (calls, streams) == ([], [])


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_every_file_says_what_it_is(file: Path) -> None:
    """Each module opens with a docstring, each public class and function has one, and annotations are postponed."""
    tree = source_of(file)
    if not tree.body:
        return
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
