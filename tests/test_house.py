"""The house: imports go one way, and every file and function can be read in one sitting."""

import ast

import pytest

from rftkit.common.paths import ROOT

# Each room may import from itself and from those before it. A file of the first level is a room of its own.
ROOMS = ("common", "tasks", "prompts", "rewards", "settings", "models", "shared_prefix", "evaluate", "memory", "runs",
         "trainer", "sft", "run", "gtr", "sophia", "analysis", "report", "nano", "study", "tools", "lesson",
         "cli")  # fmt: skip
FILES = sorted(path for path in (ROOT / "rftkit").rglob("*.py") if path != ROOT / "rftkit" / "__init__.py")


def room_of(path):
    return path.relative_to(ROOT / "rftkit").parts[0].removesuffix(".py")


def imported_rooms(tree):
    """The rooms that a file imports from, at its head or inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "rftkit":
            names = [f"rftkit.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "rftkit.."]  # a relative import has no room
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("rftkit."))


def test_every_file_is_in_a_room():
    assert {room_of(path) for path in FILES} == set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_one_way(path):
    allowed = ROOMS[: ROOMS.index(room_of(path)) + 1]
    assert set(imported_rooms(ast.parse(path.read_text()))) <= set(allowed)


def test_files_and_functions_are_short():
    long = {}
    for path in FILES:
        text = path.read_text()
        lengths = {path.name: (len(text.splitlines()), 300)}
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                lengths[f"{path.name}: {node.name}"] = node.end_lineno - node.lineno + 1, 50
        long |= {name: length for name, (length, most) in lengths.items() if length > most}
    assert not long


def test_the_core_reads_in_an_evening():
    core = list((ROOT / "rftkit").glob("*.py"))
    assert len(core) <= 11 and sum(len(path.read_text().splitlines()) for path in core) <= 2400
