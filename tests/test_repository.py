"""The repository: one set of versions, small files, the doors a newcomer uses."""

import ast
import re
import subprocess
import tomllib

import pandas as pd
import pytest
import yaml
from packaging.requirements import Requirement

from rftkit.common.paths import DATA, ROOT

CARD = ("jupyterlab", "torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "ipywidgets", "matplotlib",
        "papermill")  # fmt: skip


def locked():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return dict(line.lower().replace("_", "-").split("==") for line in lines if "==" in line)


def test_the_lock_satisfies_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        need = Requirement(text)
        assert need.specifier.contains(locked()[need.name.lower()]), text


def test_the_conda_door_names_the_same_versions():
    packages = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][-1]["pip"]
    pins = dict(line.split("==") for line in packages if "==" in line)
    assert set(pins) >= set(CARD)
    assert pins == {name: locked()[name] for name in pins}
    assert "-r requirements.lock" in packages and "-e ." in packages


def test_torch_is_pinned_without_hash_or_local_version():
    assert "torch==2.13.0" in (ROOT / "requirements.lock").read_text().splitlines()


def tracked():
    try:
        names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in names.splitlines() if (ROOT / name).is_file()]


def test_tracked_files_are_under_64_megabytes():
    assert sum(path.stat().st_size for path in tracked()) < 64e6


def test_weights_are_safetensors_only():
    assert not [path for path in tracked() if path.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt")]


def imports(path):
    """The files of the kit that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rftkit"):
            for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                place = ROOT / name.replace(".", "/")
                found |= {file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()}
    return {file for file in found if file.name != "__init__.py" or file.stat().st_size > 200}


def test_a_runs_fingerprint_is_over_all_code_that_trains_and_scores():
    from rftkit.runs.fingerprint import CODE

    # What these read or check changes no number of a run.
    about = ("rftkit/runs/", "rftkit/memory/", "rftkit/common/validation.py", "rftkit/common/errors.py",
             "rftkit/common/hub.py", "rftkit/common/paths.py", "rftkit/common/statistics.py",
             "rftkit/common/adapters.py")  # fmt: skip
    code = [ROOT / "rftkit" / name for name in CODE]
    files = {file for path in code for file in ([path] if path.is_file() else path.rglob("*.py"))}
    needed = {file for path in files for file in imports(path)}
    assert ROOT / "rftkit/common/mathematics/answers.py" in needed
    assert not [path for path in needed - files if not str(path.relative_to(ROOT)).startswith(about)]


def test_links_of_the_documents_lead_somewhere():
    documents = [path for path in tracked() if path.suffix == ".md"]
    links = [(path, link) for path in documents for link in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text())]
    assert len(links) > 30
    assert not [(path.name, link) for path, link in links if not (path.parent / link).exists()]


def test_claims_name_known_methods():
    from rftkit.settings import METHODS

    claims = yaml.safe_load((DATA / "claims.yaml").read_text())
    assert {c[key] for c in claims["primary"] for key in ("first", "second")} <= set(METHODS)


def test_the_nano_profile_has_what_the_rule_chose():
    from rftkit.settings import load_settings
    from rftkit.tools.select import best_point

    points = pd.read_csv(DATA / "selection-shapes.csv")
    for method, part in points.groupby("method"):
        settings = load_settings("nano", method)
        assert best_point(part) == {"steps": settings.steps, "learning_rate": settings.learning_rate}
