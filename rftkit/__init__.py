"""rftkit: when should a model think before it answers? Visual GRPO, on a CPU and on one GPU."""

import logging

__version__ = "0.1.0"

# On some CPUs bitsandbytes looks for a faster kernel that the kit does not use, and says in every process that it is
# not there. This line alone is left out, before anything of the kit can import it.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: not record.getMessage().startswith("Failed to load CPU gemm_4bit_forward")
)
