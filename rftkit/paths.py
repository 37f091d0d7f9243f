"""Where the clone's data and notebooks are: rftkit is installed editable and finds them beside itself."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
NOTEBOOKS = ROOT / "notebooks"
PROFILES = NOTEBOOKS / "profiles"
KEPT = DATA / "logs" / "study"  # the kit's own study, as `rftkit report --keep` keeps runs
BUNDLED = DATA / "models"
