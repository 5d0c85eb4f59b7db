"""Every text is UTF-8, whatever the locale says."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from images_that_speak.errors import UserError
from images_that_speak.files import read_text
from images_that_speak.resources import ROOT, words

SOURCES = [*sorted(ROOT.glob("*.py")), *sorted((ROOT / "src").rglob("*.py")),
           *sorted((ROOT / "benchmarks").rglob("*.py"))]


def by_locale(text: str) -> list[int]:
    """The lines of Python code whose call reads or writes text in the encoding of the locale."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        texts = [value.value for value in [*node.args, *given.values()]
                 if isinstance(value, ast.Constant) and isinstance(value.value, str)]
        if "encoding" in given or name == "read_text" and texts[:1] == ["utf-8"]:
            continue
        is_mode = [set(text) <= set("rwaxbt+") and len(text) <= 3 for text in texts]
        binary = any(fits and "b" in text for fits, text in zip(is_mode, texts, strict=True))
        if name == "open" and isinstance(node.func, ast.Name) and not binary:
            found.append(node.lineno)
        elif name == "NamedTemporaryFile" and any(is_mode) and not binary:
            found.append(node.lineno)
        elif name in ("read_text", "write_text") and isinstance(node.func, ast.Attribute):
            found.append(node.lineno)
        elif {"text", "universal_newlines"} & set(given) and "subprocess." in ast.unparse(node.func):
            found.append(node.lineno)
    return found


def test_the_search_finds_what_it_is_for() -> None:
    wrong = ("p.read_text()", "open(p)", "open(p, 'w')", "subprocess.run(x, text=True)", "p.write_text('é')")
    assert by_locale("\n".join(wrong)) == [1, 2, 3, 4, 5]
    right = ("p.read_text(encoding='utf-8')", "p.read_text('utf-8')", "open(p, 'rb')",
             "open(p, 'w', encoding='utf-8')", "os.open(p, 0)")
    assert not by_locale("\n".join(right))


def test_no_text_is_read_or_written_by_the_locale() -> None:
    found = {path.relative_to(ROOT): by_locale(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert not {path: lines for path, lines in found.items() if lines}, "give encoding=\"utf-8\""


def test_a_record_is_the_same_in_every_locale(tmp_path: Path) -> None:
    code = ("import sys; from images_that_speak.files import read_json, write_json\n"
            "write_json(sys.argv[1], {'image_prompt': 'caf\\xe9'})\n"
            "for _ in range(2): write_json(sys.argv[1], read_json(sys.argv[1]))\n"
            "assert read_json(sys.argv[1]) == {'image_prompt': 'caf\\xe9'}\n")
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0",
                  "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "sample.json")], check=True,
                   env={**os.environ, **ascii_only})
    assert "café" in (tmp_path / "sample.json").read_text(encoding="utf-8")


def test_what_people_write_is_read_or_named(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffapple\ncafé\n".encode())
    assert words(path) == ["apple", "café"]
    path.write_bytes("café\n".encode("latin-1"))
    with pytest.raises(UserError, match="words.txt: cannot be read as text in UTF-8"):
        read_text(path)
