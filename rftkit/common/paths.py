"""Where the clone's data and notebooks are: rftkit is installed editable and finds them beside itself."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
NOTEBOOKS = ROOT / "notebooks"
PROFILES = NOTEBOOKS / "profiles"
LOGS = DATA / "logs"  # archived runs of the kit
KEPT = LOGS / "study"  # archived by `rftkit report --keep`
BUNDLED = DATA / "models"
OWN = ("gtr", "sophia")  # methods beside the study's, with settings and results of their own: rftkit/METHOD/


def profile_path(name: str) -> Path:
    """The file of a profile, by its name or its path."""
    bundled = PROFILES / f"{name}.yaml"
    return bundled if bundled.is_file() else Path(name)


def model_folder(name: str, beside: Path = Path()) -> Path | None:
    """The folder that a model's name stands for: a bundled model, or a path as seen from `beside`. None if there is
    none, so that the name may be a hub id."""
    folders = (BUNDLED / name, beside / name)
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)
