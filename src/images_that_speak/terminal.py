"""What a terminal gives and takes: bytes that are no UTF-8, letters that it cannot show."""

from __future__ import annotations

import io
import os
import sys

from .errors import UserError


def lenient() -> None:
    """Have what the terminal cannot show replaced: a table with … must not end a run after hours."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def typed(argument: str, free_text: tuple[str, ...]) -> str:
    """An argument as it was meant: a prompt that is not in UTF-8 is read as Windows' Latin letters.

    free_text: the keys of prompts. Raises UserError where another argument holds such bytes, for no file
    could record it.
    """
    if not any("\ud800" <= letter <= "\udfff" for letter in argument):
        return argument
    data = os.fsencode(argument)
    key = argument.partition("=")[0]
    if key.lstrip("+") not in free_text:
        raise UserError(f"{data.decode('utf-8', 'backslashreplace')}: not in UTF-8 (expected arguments, and "
                        "names of files, in UTF-8)")
    # It has no letter for five bytes.
    return data.decode("cp1252", "replace")
