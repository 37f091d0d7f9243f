"""Where the clone's data and notebooks are: rftkit is installed editable and finds them beside itself."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
NOTEBOOKS = ROOT / "notebooks"
PROFILES = NOTEBOOKS / "profiles"
LOGS = DATA / "logs"  # kept runs of the kit's own
KEPT = LOGS / "study"  # as `rftkit report --keep` keeps them
BUNDLED = DATA / "models"
