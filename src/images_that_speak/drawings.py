"""What the pocket family's painter draws, from the command line: the things, and the sentences about them.

    python -m images_that_speak.drawings
    python -m images_that_speak.drawings "a kitten" "three black cats"
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence

from .data.captions import NUMBERS, TEMPLATES
from .data.emoji import concepts
from .data.nearest import nearest_drawing
from .errors import UserError

WIDTH = 100
KINDS = {"animal": "animals", "plant": "plants", "food": "food", "vehicle": "vehicles", "weather": "weather",
         "building": "buildings", "object": "objects"}


def main(arguments: Sequence[str] | None = None) -> int:
    """List what is known, or say what is drawn for each prompt; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m images_that_speak.drawings",
                                     description="What the painter of the pocket family knows.")
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="say what is drawn for it")
    given = parser.parse_args(arguments)
    try:
        lines = [answer(prompt) for prompt in given.prompts] or listing()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


def answer(prompt: str) -> str:
    """What is drawn for one prompt. Raises UserError where nothing is near it."""
    found = nearest_drawing(prompt)
    return f"{prompt!r} is known: {found.caption!r}" if found.known else found.told()


def listing() -> list[str]:
    """All things by kind, then the kinds of sentence."""
    lines = [f"The {len(concepts())} things that the pocket family's painter knows (* also as a silhouette):"]
    for group, names in by_group().items():
        lines += textwrap.wrap(f"{group}: {', '.join(names)}", WIDTH, initial_indent="  ",
                               subsequent_indent="    ")
    lines += ["", "In these sentences:"]
    lines += [f"  {template.format('…')}" for kind in TEMPLATES.values() for template in kind]
    counts = ", ".join(f"{word} owls" for word in NUMBERS[2:])
    lines += ["", f"where … is one of: an owl, owls, {counts}.",
              "Anything else is met by the nearest of these; strict=true refuses it, strict=null draws it as "
              "it is asked."]
    return lines


def by_group() -> dict[str, list[str]]:
    """{kind of thing: names}, with "*" where the bare outline is known too."""
    found: dict[str, list[str]] = {}
    for thing in concepts():
        found.setdefault(KINDS[thing.group], []).append(thing.name + "*" * thing.outline)
    return found


if __name__ == "__main__":
    sys.exit(main())
