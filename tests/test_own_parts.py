"""Parts of one's own: a class in a module beside the configurations and a yaml, and nothing is touched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
import soundfile
from omegaconf import OmegaConf
from tiny_family import VOICES, WIDTH, tiny_pocket_family

from images_that_speak import config, objectives
from images_that_speak.checks import generate as check_generate
from images_that_speak.checks import train as check_train
from images_that_speak.errors import UserError
from images_that_speak.files import read_json
from images_that_speak.generate import generate
from images_that_speak.help import help_text
from images_that_speak.reports.commands import main
from images_that_speak.resources import OWN_CONFIGS
from images_that_speak.runs.sweep import table

PARTS = '''
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.configuration_utils import register_to_config
from torch import nn

from images_that_speak.audio.vocoder_base import Vocoder
from images_that_speak.data.datamodule import BatchDataset
from images_that_speak.diffusion.composition import Composition, blend
from images_that_speak.figures import Figure
from images_that_speak.networks.adapters import PhonemeAdapter
from images_that_speak.networks.condition import Condition, Input
from images_that_speak.scoring.metric import Metric


@dataclass(frozen=True)
class Halves(Composition):
    share: float = 0.5

    def __call__(self, image, speech, moment):
        return blend(image.guided, speech.guided, self.share)

    def finish(self, pictures, activity):
        return pictures.clamp(0.25, 0.75)


class Hum(Vocoder):
    """A sine as loud as each column is bright."""

    architecture = "parts_of_my_own.Hum"
    trained = False

    def __init__(self):
        super().__init__()
        self.config = {}
        self.register_buffer("wave", torch.sin(torch.arange(self.spec.hop) * 0.3))

    def forward(self, logmel):
        return (logmel.mean(1).exp()[..., None] * self.wave).flatten(1)


class Brightness(Metric):
    """`brightness`: the mean of a picture."""

    figures = (Figure("brightness", "how bright", "maximize"),)

    def add(self, clips):
        return [{"brightness": float(clip.picture.mean())} for clip in clips]


class Noise(BatchDataset):
    """Latents that are noise, and how loud they are."""

    streamed = True

    def __init__(self, length):
        super().__init__()
        self.length = length

    def __len__(self):
        return self.length

    def images(self, keys):
        return "latent", np.zeros((len(keys), 8, 16, 64), np.float32)

    def conditions(self, keys):
        return {"loudness": np.ones(len(keys), np.float32), "voice": np.ones(len(keys), np.int64)}


class Counted(PhonemeAdapter):
    """One token: how many phones are said, or how loud they are."""

    @register_to_config
    def __init__(self, voices: int, width: int = 16, features: int | None = None, loud: bool = False):
        super().__init__()
        self.project = nn.Linear(1, width)

    @property
    def inputs(self):
        return {"loudness": Input(0, (), torch.float32)} if self.config.loud else super().inputs

    def encode(self, batch):
        said = batch["loudness"] if self.config.loud else batch["phone_mask"].float().sum(1)
        tokens = self.project(said[:, None, None])
        return Condition(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))
'''
YAMLS = {
    "composition/halves": "# Half of each.\n_target_: parts_of_my_own.Halves\nshare: 0.5\n",
    "vocoder/hum": "# Hums.\npath: parts_of_my_own.Hum\n",
    "metrics/brightness": "# How bright pictures are.\nbrightness:\n  _target_: parts_of_my_own.Brightness\n",
    "data/noise": """
        # Noise to learn from.
        _target_: images_that_speak.data.datamodule.PictureData
        batch_size: 2
        train:
          _target_: parts_of_my_own.Noise
          length: 8
        """,
    "adapter/counted": "# Counts.\n_target_: parts_of_my_own.Counted\nvoices: 2\nwidth: 128\nloud: true\n",
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of one's own configurations, with the parts."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "parts_of_my_own.py").write_text(PARTS)
    for name, text in YAMLS.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(OWN_CONFIGS, str(folder))
        yield folder


@pytest.fixture(scope="module")
def family(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family whose speech branch has the adapter."""
    folder = tiny_pocket_family(tmp_path_factory.mktemp("pocket"))
    counted = config.locate("parts_of_my_own.Counted")
    counted(len(VOICES), WIDTH).save_pretrained(str(folder / "speech/adapter"))
    return folder


def test_help_lists_them(own: Path) -> None:
    made, trained = help_text("generate"), help_text("train")
    for line in ("halves                    Half of each.", "hum                       Hums.",
                 "brightness                How bright pictures are."):
        assert line in made
    for line in ("noise                     Noise to learn from.", "counted                   Counts."):
        assert line in trained


def overrides(family: Path, tmp_path: Path) -> list[str]:
    return ["composition=halves", "vocoder=hum", "metrics=brightness", "reader=pocketsphinx",
            f"family.weights={family}", f"paths.logs={tmp_path}", "audio_prompt='happy music'", "steps=2",
            "reader.picture=null", "device=cpu"]


def test_a_check_builds_them(family: Path, tmp_path: Path) -> None:
    lines, wrong = check_generate.check(config.compose("generate", overrides(family, tmp_path)))
    told = "\n".join(lines)
    assert wrong == []
    assert "Halves of image and speech" in told and "brightness (none)" in told
    assert "played by parts_of_my_own.Hum" in told
    assert config.unbound({"_target_": "parts_of_my_own.Halves", "shar": 1}, "composition") == [
        "composition.shar: parts_of_my_own.Halves takes no 'shar'. Did you mean 'share'?"]


def test_a_training_is_checked_with_them(own: Path, tmp_path: Path) -> None:
    cfg, found = config.examine("train", ["experiment=pocket/speech", "adapter=counted", "data=noise",
                                          "model.crop_columns=null", f"paths.logs={tmp_path}"])
    assert found == [] and check_train.check(cfg)[1] == []
    OmegaConf.update(cfg, "adapter.loud", False)
    assert check_train.check(cfg)[1] == [
        "data.train: Counted reads phone_mask, phones; Noise gives loudness, voice"]


def test_samples_are_made_and_measured_with_them(family: Path, tmp_path: Path) -> None:
    result = generate(config.compose("generate", overrides(family, tmp_path)))
    folder, = tmp_path.glob("generate/*/samples/*")
    record = read_json(folder / "sample.json")
    assert record["settings"]["composition"]["_target_"] == "parts_of_my_own.Halves"
    assert result["brightness"] == pytest.approx(record["scores"]["brightness"])
    assert 0.25 * 255 <= result["brightness"] <= 0.75 * 255
    wave, _ = soundfile.read(folder / "speech.wav")
    assert abs(wave).max() > 0
    assert result["figures"]["brightness"]["title"] == "how bright"


def test_tables_pages_and_searches_know_its_figures(family: Path, tmp_path: Path) -> None:
    given = overrides(family, tmp_path)
    for share in (0.2, 0.8):
        generate(config.compose("generate", [*given, f"composition.share={share}"]))
    runs = sorted(path.parent for path in tmp_path.glob("generate/*/result.json"))
    jobs = [{"name": run.name, "folder": run.name, "status": "finished", "settings": {}, "error": None,
             "result": read_json(run / "result.json")} for run in runs]
    columns, rows = table(jobs)
    assert "brightness" in columns and all(row["brightness"] > 0 for row in rows)
    assert main(["gallery", str(tmp_path / "generate"), "-o", str(tmp_path / "gallery.html")]) == 0
    assert '{"key":"brightness","name":"how bright","falling":true,"measured":true}' in (
        tmp_path / "gallery.html").read_text()
    assert main(["compare", *map(str, runs), "-o", str(tmp_path / "compare.html")]) == 0
    assert '<th scope="row">how bright</th>' in (tmp_path / "compare.html").read_text()
    cfg = config.compose("generate", [*given, "optimized_metrics=[brightness]"])
    assert objectives.undeclared(cfg, "generate") == []
    assert objectives.declared(cfg, "generate")["brightness"] == "maximize"


@pytest.mark.parametrize("target", ["os.system", "numpy.load", "subprocess_of_mine.run"])
def test_nothing_else_can_be_built(own: Path, target: str) -> None:
    (own / "numpy.py").write_text("")
    with pytest.raises(UserError, match=f"{target}' may not be built"):
        config.locate(target)
