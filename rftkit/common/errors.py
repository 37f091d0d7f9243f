"""Errors a user can cause and fix."""

import errno

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
# What safetensors (the first line) and torch.save say on a disk, or of a quota, that is full.
FULL_DISK = ("no space left", "error while serializing: i/o error", "quota exceeded",
             "failed writing", "unexpected pos", "iostream error")  # fmt: skip


class UserError(Exception):
    """One line: what is wrong, where, and how to fix it. The command line prints it and exits with 2."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class Diverged(UserError):
    """Training went beyond all numbers; with other settings it may not."""


def within(name: str, value: float | None, least: float, most: float) -> None:
    """UserError if a number that is given lies outside of its bounds."""
    if value is not None and not least <= value <= most:
        allowed = f"most {most}" if value > most else f"least {least}"
        raise UserError(f"{name} must be at {allowed}, not {value:.15g}")


def said(error: Exception) -> str:
    """The first line of what an error says, with what a colon at its end announces; its type if it says nothing."""
    return (str(error).strip() or type(error).__name__).replace(":\n", ": ").splitlines()[0]


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device had no more memory: torch's on a GPU, its RuntimeError on a CPU, or Python's own."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in text and "alloc" in text)


def as_user_error(error: Exception) -> UserError | None:
    """What a user can do about an error of the disk, the network or the memory; None if it is another kind of error."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and error.errno in NO_LOCKS:
        where = f" of '{error.filename}'" if error.filename else ""
        return UserError(
            f"the file system{where} cannot lock files: write to another one (--out; HF_HOME of the hub's)"
        )
    if isinstance(error, OSError) and error.strerror:
        return UserError(f"cannot read or write '{str(error.filename or 'a file')[:200]}': {error.strerror}")
    if type(error).__module__.startswith("httpx"):  # what the hub is asked through, in any version
        return UserError(f"the connection broke off ({error}): start the same command again to go on")
    text = str(error).lower()
    if any(words in text for words in FULL_DISK):
        return UserError("cannot write a checkpoint: the disk is full; make room and start the same command again")
    if is_out_of_memory(error):
        return UserError(
            "out of memory: lower micro_batch, eval_batch (--batch) or max_pixels, set gradient_checkpointing or "
            "quantize, each a line of a profile and a flag (--micro-batch 8), or take a smaller model; start the same "
            "command again to go on"
        )
    return None
