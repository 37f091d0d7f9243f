"""Where the clone's data and notebooks are: rftkit is installed editable and finds them beside itself."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
NOTEBOOKS = ROOT / "notebooks"
PROFILES = NOTEBOOKS / "profiles"
BUNDLED = DATA / "models"
