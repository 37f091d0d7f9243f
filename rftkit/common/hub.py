"""The hub: asked once, before its libraries ask many times and repeat each question for minutes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)

from rftkit.common.errors import UserError, said

WAIT = 5.0  # seconds for the hub's answer
ASKED_FOR = {"model": "config.json", "dataset": "README.md"}


def why_not(name: str, kind: str) -> str | None:
    """Why the hub does not give a `model` or `dataset` now, and what to do about it; None if it does."""
    try:
        get_hf_file_metadata(hf_hub_url(name, ASKED_FOR[kind], repo_type=kind), timeout=WAIT)
    except RemoteEntryNotFoundError:  # it is there, without that file
        return None
    except GatedRepoError:
        return "the hub gives it only to those who accepted its terms: accept them on its page and run hf auth login"
    except RepositoryNotFoundError:
        return "the hub has none of that name for you: check the spelling, if it is private run hf auth login"
    except OfflineModeIsEnabled:
        return "HF_HUB_OFFLINE is set: unset it"
    except HfHubHTTPError as error:
        return f"the hub answers with status {error.response.status_code}: try again later"
    except Exception as error:  # of the network: its libraries raise all kinds
        return f"the hub cannot be reached ({said(error)[:80]}): check the network"
    return None


@contextmanager
def asked_once(name: str, kind: str, otherwise: str) -> Iterator[None]:
    """Within it a `model` or `dataset` may be read from the hub, or where that does not give it from the cache alone.

    UserError if it is in neither; `otherwise` is what else the user may do. A folder, named by its path, needs no hub.
    Not for threads: that only the cache is read is a setting of the libraries.
    """
    why = None if Path(name).is_dir() else why_not(name, kind)
    if why is None:
        yield
        return
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    except OSError as error:  # of what is not there the libraries raise some kind of it, without a number
        if error.errno is not None:
            raise
        raise UserError(f"{kind} '{name}' is not on this machine and {why}, or {otherwise}") from error
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
