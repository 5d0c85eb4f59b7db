"""The model hub, where it can be reached."""

from __future__ import annotations

from pathlib import Path


def out_of_reach(model: str) -> bool:
    """Whether `model` is an id of the hub and the hub does not answer: then only its cache is worth a look.

    The libraries that load models do not ask this first: file by file they try again, for minutes in all,
    before they say that a model cannot be had.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if Path(model).is_dir():
        return False
    try:
        HfApi().model_info(model, timeout=10)
    except (HfHubHTTPError, HFValidationError):  # it answers, or is never asked
        return False
    except Exception:  # each client has its own for a network that is not there
        return True
    return False
