"""The picture reader: the 25-crop protocol, its loaders, and the training of the pocket CLIP."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from machine import needs_font

from images_that_speak import config
from images_that_speak.data.captions import captions
from images_that_speak.data.emoji import concepts
from images_that_speak.data.tokenizer import build_tokenizer
from images_that_speak.data.windows import Windows
from images_that_speak.errors import UserError
from images_that_speak.scoring.seen import (
    PictureReader,
    as_batch,
    caption_figures,
    crops,
    load_picture_reader,
)
from images_that_speak.training.clip import ClipTraining, contrastive_loss, open_clip_config, save_clip
from images_that_speak.training.train import train

TINY = {"pixels": 32, "width": 8, "embed_dim": 32, "text_width": 64, "text_layers": 1}


class Means(torch.nn.Module):
    """A stand-in for CLIP: embeds a crop by its mean, with the angle 90°·mean, and a text by its number."""

    def __init__(self):
        super().__init__()
        self.visual = torch.nn.Module()
        self.visual.preprocess_cfg = {"size": (64, 64), "mean": [0.0] * 3, "std": [1.0] * 3}

    def encode_image(self, x, normalize):
        assert x.shape[1:] == (3, 64, 64) and normalize
        return self._point(x.mean((1, 2, 3)))

    def encode_text(self, ids, normalize):
        return self._point(ids[:, 0].float())

    @staticmethod
    def _point(share):
        return torch.stack([torch.cos(share * math.pi / 2), torch.sin(share * math.pi / 2)], 1)


@pytest.fixture
def means():
    return PictureReader(Means(), lambda texts: torch.tensor([[float(text)] for text in texts]), "means")


def test_crops_slide_by_32_over_the_whole_picture():
    picture = torch.arange(1024.0).repeat(1, 256, 1)
    found = crops(picture)
    assert found.shape == (1, 25, 256, 256)
    assert [int(crop[0, 0]) for crop in found[0]] == list(range(0, 769, 32))
    assert int(found[0, -1, 0, -1]) == 1023


def test_score_is_the_mean_cosine_over_crops(means):
    # Left half white: crop k holds white columns max(0, min(256, 512 - 32k)).
    picture = np.zeros((256, 1024), np.uint8)
    picture[:, :512] = 255
    share = np.clip((512 - 32 * np.arange(25)) / 256, 0, 1)
    expected = 100 * np.cos((1 - share) * np.pi / 2).mean()
    assert means.score([picture], ["1"])[0] == pytest.approx(expected, abs=0.1)
    as_float = means.score([picture.astype(np.float32) / 255], ["1"])[0]
    assert as_float == pytest.approx(means.score([picture], ["1"])[0], abs=1e-4)


def test_retrieval_ranks_and_ties(means):
    pictures = [np.full((256, 1024), value, np.float32) for value in (0.0, 0.5, 1.0)]

    def figures(pictures: list, texts: list[str], choices: list[str]) -> list[dict]:
        return caption_figures(means.similarities(pictures, choices), texts, choices)

    found = figures(pictures, ["0", "0.5", "0"], ["0", "0.5", "1"])
    assert [row["rank"] for row in found] == [1, 1, 3]
    assert [row["taken_for"] for row in found] == ["0", "0.5", "1"]
    assert [row["top1"] for row in found] == [True, True, False]
    # What cannot be told apart is not a hit.
    assert figures(pictures[:1], ["0.5"], ["0.5", "-0.5"])[0]["rank"] == 2


def test_results_do_not_depend_on_the_batch(means):
    rng = np.random.default_rng(0)
    pictures = [rng.random((256, 1024), dtype=np.float32) for _ in range(5)]
    together = means.embed_pictures(pictures)
    for index, picture in enumerate(pictures):
        assert torch.allclose(means.embed_pictures([picture])[0], together[index], atol=1e-6)


@pytest.mark.parametrize("picture, message", [
    (np.zeros((256, 512), np.uint8), "shape"),
    (np.zeros((3, 256, 1024), np.uint8), "shape"),
    (np.full((256, 1024), np.nan, np.float32), "NaN"),
    (np.full((256, 1024), 2.0, np.float32), "values"),
    (np.zeros((256, 1024), np.int32), "int32"),
])
def test_bad_pictures_are_named(picture, message):
    with pytest.raises(UserError, match=f"picture 1.*{message}"):
        as_batch([np.zeros((256, 1024), np.uint8), picture])


def test_bad_requests(means):
    picture = np.zeros((256, 1024), np.uint8)
    with pytest.raises(UserError, match="no picture"):
        means.score([], [])
    with pytest.raises(UserError, match="1 pictures but 2 texts"):
        means.score([picture], ["1", "2"])
    with pytest.raises(UserError, match="empty"):
        means.score([picture], [" "])


# --- training ---------------------------------------------------------------------------------------------

def test_contrastive_loss_of_perfect_and_of_equal_embeddings():
    eye = torch.eye(4)
    labels = torch.tensor([0, 1, 2, 3, 0])
    assert contrastive_loss(eye[labels], eye, labels, torch.tensor(100.0)) < 1e-4
    same = torch.ones(5, 4) / 2
    # Nothing can be told: log 4 for texts; for windows log 5 less the log of how many share the label.
    expected = (math.log(4) + (math.log(5 / 2) + 3 * math.log(5)) / 4) / 2
    loss = contrastive_loss(same, same[:4], labels, torch.tensor(1.0)).item()
    assert loss == pytest.approx(expected, abs=1e-5)


def test_contrastive_loss_is_clips_own_where_each_label_occurs_once():
    torch.manual_seed(0)
    image = torch.nn.functional.normalize(torch.randn(6, 8), dim=1)
    text = torch.nn.functional.normalize(torch.randn(6, 8), dim=1)
    from open_clip.loss import ClipLoss

    expected = ClipLoss()(image, text, torch.tensor(10.0))
    assert contrastive_loss(image, text, torch.arange(6), torch.tensor(10.0)).item() == pytest.approx(
        expected.item(), abs=1e-5
    )


@needs_font
def test_windows_are_determined_and_labelled():
    windows = Windows(seed=1, batch_size=128)
    batch, again = windows.batch(3), replace(windows).batch(3)
    assert torch.equal(batch.pictures, again.pictures) and torch.equal(batch.labels, again.labels)
    assert not torch.equal(batch.pictures, windows.batch(4).pictures)
    assert batch.pictures.shape == (128, 64, 64)
    assert 0 <= batch.pictures.min() and batch.pictures.max() <= 1 and batch.pictures.isfinite().all()
    nothing = (batch.labels == len(concepts())).float().mean()
    assert 0.03 < nothing < 0.25
    assert (batch.labels < 0).float().mean() < 0.2
    # Without distortions an empty window on black is black.
    clean = windows.batch(3, distort=0.0)
    empty = (clean.labels == len(concepts())) & ~clean.silhouettes
    assert clean.pictures[empty].mean() < 0.05
    assert clean.pictures[clean.labels >= 0].mean() > 0.05


@needs_font
def test_windows_say_no_held_out_sentence():
    held_out = {caption.text for caption in captions("test") if caption.template != "{}"}
    windows = Windows(seed=1)
    for index in range(5):
        texts = windows.texts(index)
        assert len(texts) == len(concepts()) + 1
        assert not held_out & set(texts)


@needs_font
def test_the_experiment_makes_what_the_reader_reads_with(tmp_path):
    result = train(config.compose("train", [
        "experiment=pocket/clip", "steps=3", "data.batch_size=8", "data.ramp=2", "export=null", "device=cpu",
        f"paths.logs={tmp_path}", *(f"model.{name}={size}" for name, size in TINY.items())]))
    assert result["steps"] == 3 and 0 <= result["valid/window_top1"] <= 1
    assert math.isfinite(result["train/loss"])
    folder, = tmp_path.glob("train/*/weights/clip")
    scores = load_picture_reader(str(folder)).score([np.zeros((256, 1024), np.uint8)],
                                                    ["a drawing of two cats, grayscale"])
    assert scores.shape == (1,) and -100 <= scores[0] <= 100


def test_the_learning_rate_rises_and_falls_along_half_a_cosine():
    module = ClipTraining(**TINY, learning_rate=2.0, warmup=4, max_steps=8)
    configured = module.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    expected = [min(1, (k + 1) / 4) * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
    assert rates == pytest.approx(expected)
    # Gains, biases, the scale and the free vectors do not decay.
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert all(p.ndim >= 2 for p in optimizer.param_groups[0]["params"])


# --- loading ----------------------------------------------------------------------------------------------

@pytest.fixture
def folder(tmp_path):
    """A folder with an untrained model, as open_clip lays it out."""
    import open_clip

    logging.disable(logging.WARNING)
    vocabulary = len(build_tokenizer(tmp_path))
    (tmp_path / "open_clip_config.json").write_text(json.dumps(open_clip_config(vocabulary, **TINY)))
    save_clip(open_clip.create_model(f"local-dir:{tmp_path}", load_weights=False).state_dict(), tmp_path)
    logging.disable(logging.NOTSET)
    return tmp_path


def test_load_from_a_folder(folder):
    reader = load_picture_reader(str(folder))
    assert reader.name == folder.name and reader.size == (32, 32)
    embedded = reader.embed_crops([np.zeros((256, 1024), np.uint8)])
    assert embedded.shape == (1, 25, 32)
    assert torch.allclose(embedded.norm(dim=2), torch.ones(1, 25), atol=1e-5)


def test_truncated_weights_are_one_clear_error(folder):
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_picture_reader(str(folder))
    weights.unlink()
    with pytest.raises(UserError, match="holds no weights"):
        load_picture_reader(str(folder))


def test_unknown_models_are_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'ViT-B-16'"):
        load_picture_reader("ViT-B16")
    with pytest.raises(UserError, match="Did you mean 'laion2b_s34b_b88k'"):
        load_picture_reader("ViT-B-16", "laion2b_s34b_b88")
    with pytest.raises(UserError, match="no CLIP model here"):
        load_picture_reader(str(tmp_path))
    with pytest.raises(UserError, match="holds no weights"):
        load_picture_reader("ViT-B-16", str(tmp_path))
