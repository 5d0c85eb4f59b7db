"""The notebooks, run from the first cell to the last: with few steps, in a folder of the test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from machine import needs_flite
from nbclient import NotebookClient

from images_that_speak.resources import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 300_000  # bytes of a notebook with its outputs


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookClient]:
    """One kernel for all, emptied between them: importing torch anew takes longer than a notebook."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(ROOT / "notebooks"), env={
        **os.environ, "NOTEBOOKS_FOLDER": str(tmp_path_factory.mktemp("notebooks")),
        "PYTHONPATH": str(ROOT / "src"), "MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    yield NotebookClient(nbformat.v4.new_notebook(), km=manager, timeout=300)
    manager.shutdown_kernel(now=True)


def test_there_are_four() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "guidance_sweep", "inside_a_step", "lora_voice", "quick_start"]


@pytest.mark.parametrize("path", [
    # One of them has a voice speak a corpus.
    pytest.param(path, id=path.stem, marks=[needs_flite] if path.stem == "lora_voice" else [])
    for path in NOTEBOOKS])
def test_a_notebook_runs(path: Path, client: NotebookClient) -> None:
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    client.nb = notebook
    client.execute(cleanup_kc=False)  # raises CellExecutionError with the cell and its traceback


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_with_its_outputs(path: Path) -> None:
    """Small ones, in order, of a run without errors, that name no folder of whoever ran it."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < LARGEST
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(root in path.read_text() for root in (str(ROOT), "/home/", "/tmp/", "/Users/"))
