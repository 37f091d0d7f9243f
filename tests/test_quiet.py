"""Nothing red that is not wrong."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

LOGGER, LINE = "bitsandbytes.backends.cpu.ops", "Failed to load CPU gemm_4bit_forward"


def test_the_line_about_a_kernel_that_is_not_used_is_silent_and_no_other(tmp_path):
    code = f"""
import logging, rftkit
log = logging.getLogger("{LOGGER}")
log.warning("{LINE} from kernels-community: %s", "No module named 'kernels'")
log.warning("something is wrong")
logging.getLogger("bitsandbytes").warning("{LINE}, said elsewhere")
import bitsandbytes
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stderr.splitlines() == ["something is wrong", f"{LINE}, said elsewhere"]


def test_it_is_still_what_bitsandbytes_writes_there():
    source = Path(find_spec("bitsandbytes").origin).parent / "backends" / "cpu" / "ops.py"
    assert f'"{LINE}' in source.read_text() and "logging.getLogger(__name__)" in source.read_text()
