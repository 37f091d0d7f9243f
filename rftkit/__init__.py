"""rftkit: when should a model think before it answers? Visual GRPO, on a CPU and on one GPU."""

__version__ = "0.1.0"
