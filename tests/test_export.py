"""Weights are written in half precision, in files that a repository takes, without the paths of a machine."""

from pathlib import Path

import pytest
import torch
from tiny_family import tiny_unet

from images_that_speak.errors import UserError
from images_that_speak.training import export
from images_that_speak.training.export import save_half


def test_large_weights_are_split_and_loaded_by_the_stock_class(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unet = tiny_unet(4)
    monkeypatch.setattr(export, "LARGEST", 60_000)
    save_half(unet, tmp_path / "unet")
    files = list((tmp_path / "unet").glob("*.safetensors"))
    assert len(files) > 1 and all(file.stat().st_size < 80_000 for file in files)
    loaded = type(unet).from_pretrained(tmp_path / "unet")
    for name, value in unet.state_dict().items():
        assert torch.equal(loaded.state_dict()[name].float(), value.half().float()), name
    assert unet.dtype == torch.float32


def test_no_path_of_this_machine_is_kept(tmp_path: Path) -> None:
    unet = tiny_unet(4)
    unet.save_pretrained(str(tmp_path / "a"))
    save_half(type(unet).from_pretrained(tmp_path / "a"), tmp_path / "b")
    assert str(tmp_path) not in (tmp_path / "b/config.json").read_text()


def test_what_does_not_fit_half_precision_is_not_written(tmp_path: Path) -> None:
    unet = tiny_unet(4)
    torch.nn.init.constant_(unet.conv_in.bias, 1e6)
    with pytest.raises(UserError, match=r"conv_in\.bias holds"):
        save_half(unet, tmp_path / "unet")
    assert not (tmp_path / "unet").exists()
