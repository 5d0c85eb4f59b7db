"""Batches of pictures, latents, phones and captions; caches; resuming; the published layout."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pandas
import pytest
import torch
from machine import needs_font
from torch import nn

from images_that_speak.audio.mel import MEL
from images_that_speak.data.datamodule import (
    CaptionedPictures,
    EpochBatches,
    PictureData,
    SpeechClips,
    batch_loader,
    rolled,
)
from images_that_speak.data.latents import LatentCache, autoencoder_hash, cache_latents
from images_that_speak.data.manifest import write_manifest
from images_that_speak.data.published import PublishedClips
from images_that_speak.errors import UserError
from images_that_speak.speech.alignment import frame_phones
from images_that_speak.speech.phonemes import PAUSE, PHONE_IDS


class Averages(nn.Module):
    """Stands for an autoencoder: a latent column is the mean of its 16 × 16 pixels."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.config = SimpleNamespace(in_channels=1)
        self.calls = 0

    def encode(self, x):
        self.calls += 1
        mean = nn.functional.avg_pool2d(x * self.scale, 16)
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=torch.cat([mean, mean + 1], 1)))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def make_corpus(root: Path) -> Path:
    """Eight clips, written as the builder does, whose pictures are bright exactly where phones sound."""
    (root / "spectrograms").mkdir(parents=True)
    rows = []
    for i in range(8):
        start = 1.0 + 0.32 * i
        bounds = [start - 0.2, start, start + 0.16, start + 0.48 + 0.16 * (i % 3), start + 1.0]
        symbols = ["pau", "hh", "ae", "pau"]
        picture = np.zeros((256, 1024), np.uint8)
        picture[:, round(bounds[1] * 100):round(bounds[3] * 100)] = 100 + i
        np.save(root / "spectrograms" / f"clip{i}.npy", picture)
        rows.append({"id": f"clip{i}", "text": "ha", "voice": ("slt", "rms")[i % 2], "tts": "none",
                     "tts_version": "0", "mel_spec": MEL.hash, "split": "valid" if i >= 6 else "train",
                     "start": start, "seconds": bounds[3] - start, "symbols": symbols, "starts": bounds[:-1],
                     "ends": bounds[1:], "spectrogram": f"spectrograms/clip{i}.npy", "wave": ""})
    write_manifest(root / "manifest.parquet", rows)
    return root


@pytest.fixture(scope="module")
def latents(corpus, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("latents") / "train"
    cache_latents(Averages(), SpeechClips(corpus), folder, batch_size=4, shard=4, progress=False)
    return folder


def test_a_batch_of_speech(corpus):
    clips = SpeechClips(corpus, voices=["slt", "rms"])
    batch = clips.__getitems__([0, 3, 5])
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in batch.items()}
    assert shapes == {
        "picture": ((3, 1, 256, 1024), torch.float32), "phones": ((3, 4), torch.int64),
        "phone_mask": ((3, 4), torch.bool), "frame_phones": ((3, 1024), torch.int64),
        "frame_position": ((3, 1024), torch.float32), "voice": ((3,), torch.int64)}
    assert batch["voice"].tolist() == [1, 2, 2]
    assert batch["phones"][0].tolist() == [PHONE_IDS[s] for s in ("pau", "hh", "ae", "pau")]
    assert batch["picture"].max() == pytest.approx(105 / 255)
    ids, position = frame_phones(clips.corpus.phones(3))
    assert batch["frame_phones"][1].tolist() == ids.tolist()
    np.testing.assert_allclose(batch["frame_position"][1], position, atol=1e-3)
    assert clips[3]["picture"].shape == (1, 256, 1024)
    assert SpeechClips(corpus).__getitems__([0])["voice"].tolist() == [2]  # sorted: rms, slt


def assert_speech_is_bright(batch, key="picture"):
    """The picture's columns are bright exactly where its frames have phones."""
    values = batch[key].amax((1, 2))
    sounding = (batch["frame_phones"] != PHONE_IDS[PAUSE]).float()
    if key == "latent":
        sounding = sounding.unflatten(1, (values.shape[1], -1)).amax(2)
    assert torch.equal(values > values.min(), sounding > 0)


@pytest.mark.parametrize("cached", [False, True])
def test_rolling_moves_sound_and_phones_together(corpus, latents, cached):
    clips = SpeechClips(corpus, roll=True, latents=latents if cached else None, seed=5)
    clips.setup()
    shifts = clips.shifts(np.arange(600))
    assert (shifts % 16 == 0).all() and len(np.unique(shifts)) > 20
    spoken = clips._spoken[np.arange(600) % 6]
    assert (spoken[:, 0] + shifts / 100 >= 0).all() and (spoken[:, 1] + shifts / 100 <= 10.24).all()
    for start in (0, 36, 72):
        batch = clips.__getitems__(np.arange(start, start + 6))
        assert_speech_is_bright(batch, "latent" if cached else "picture")
    # The same key is the same sample, whatever else is in the batch.
    alone, among = clips.__getitems__([40]), clips.__getitems__([7, 40, 2])
    assert all(torch.equal(alone[name][0], among[name][1]) for name in alone)


def test_rolled_by_hand():
    values = np.arange(12).reshape(2, 1, 6)
    assert rolled(values, np.array([2, -1])).tolist() == [[[4, 5, 0, 1, 2, 3]], [[7, 8, 9, 10, 11, 6]]]


def test_latents_are_the_encoded_pictures(corpus, latents):
    vae = Averages()
    clips = SpeechClips(corpus, latents=latents, autoencoder=vae, mean=[0.5, 0.0], std=[2.0, 1.0])
    pictures = SpeechClips(corpus).__getitems__(range(6))["picture"]
    z = vae.encode(pictures * 2 - 1).latent_dist.mean.detach()
    expected = (z - torch.tensor([0.5, 0.0]).view(1, 2, 1, 1)) / torch.tensor([2.0, 1.0]).view(1, 2, 1, 1)
    torch.testing.assert_close(clips.__getitems__(range(6))["latent"], expected, atol=2e-3, rtol=0)
    cache = LatentCache(latents)
    np.testing.assert_allclose(cache.mean, z.mean((0, 2, 3)), atol=1e-3)
    np.testing.assert_allclose(cache.std, z.std((0, 2, 3), correction=0), atol=1e-3)
    default = SpeechClips(corpus, latents=latents).__getitems__(range(6))["latent"]
    assert default.mean().abs() < 1e-2 and default.std((0, 2, 3)).sub(1).abs().max() < 1e-2
    mapped = LatentCache(latents, in_memory=0)
    order = np.array([5, 0, 3, 3, 4])
    assert len(mapped._shards) == 2 and np.array_equal(mapped[order], cache[order])


def test_caching_goes_on_where_it_stopped(corpus, latents, tmp_path):
    folder = tmp_path / "cache"
    shutil.copytree(latents, folder)
    index = json.loads((folder / "index.json").read_text())
    (folder / "shard-00001.npy").unlink()
    (folder / "index.json").write_text(json.dumps({**index, "complete": False}))
    with pytest.raises(UserError, match="not finished"):
        LatentCache(folder)
    vae = Averages()
    again = cache_latents(vae, SpeechClips(corpus), folder, batch_size=4, shard=4, progress=False)
    assert vae.calls == 1  # the first shard was kept
    assert json.loads((folder / "index.json").read_text()) == index
    assert np.array_equal(again[np.arange(6)], LatentCache(latents)[np.arange(6)])


def test_a_cache_is_refused_when_it_does_not_fit(corpus, latents, tmp_path):
    other = Averages(2.0)
    assert autoencoder_hash(other) != autoencoder_hash(Averages())
    with pytest.raises(UserError, match="another autoencoder"):
        SpeechClips(corpus, latents=latents, autoencoder=other).setup()
    with pytest.raises(UserError, match="another dataset"):
        SpeechClips(corpus, "valid", latents=latents).setup()
    with pytest.raises(UserError, match="another autoencoder"):
        cache_latents(other, SpeechClips(corpus), latents, shard=4, progress=False)
    with pytest.raises(UserError, match="expected 2 numbers"):
        SpeechClips(corpus, latents=latents, mean=[1, 2, 3], std=[1, 1, 1]).setup()
    with pytest.raises(UserError, match="no such latent cache"):
        LatentCache(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(latents, broken)
    (broken / "shard-00000.npy").write_bytes(b"\x93NUMPY")
    np.save(broken / "shard-00001.npy", np.zeros((1, 2), np.float16))
    with pytest.raises(UserError, match=r"(?s)shard-00000.*shard-00001.*expected float16 \(2, 2, 16, 64\)"):
        LatentCache(broken)


def test_all_bad_clips_are_told_at_once(corpus, tmp_path):
    root = tmp_path / "bad"
    shutil.copytree(corpus, root)
    np.save(root / "spectrograms" / "clip1.npy", np.zeros((256, 1000), np.uint8))
    np.save(root / "spectrograms" / "clip2.npy", np.zeros((256, 1024), np.float32))
    (root / "spectrograms" / "clip3.npy").unlink()
    (root / "spectrograms" / "clip7.npy").write_bytes(b"")
    data = PictureData(SpeechClips(root), SpeechClips(root, "valid"), batch_size=2)
    with pytest.raises(UserError) as error:
        data.setup()
    for told in ("3 bad clips", "clip1.npy", "(256, 1000)", "clip2.npy", "float32", "clip3.npy",
                 "1 bad clips", "clip7.npy"):
        assert told in str(error.value)
    with pytest.raises(UserError, match="voice rms"):
        SpeechClips(corpus, voices=["slt"]).setup()
    with pytest.raises(UserError, match="at most the 6 samples"):
        batch_loader(SpeechClips(corpus), 7)


def test_every_epoch_has_every_sample_once_in_its_own_order():
    batches = EpochBatches(10, 3, seed=1, drop_last=False)
    epochs = [sum(batches, []) for _ in range(3)]
    for number, keys in enumerate(epochs):
        assert sorted(keys) == list(range(10 * number, 10 * number + 10))
    assert len({tuple(key % 10 for key in keys) for keys in epochs}) == 3
    assert [sum(batch, []) for batch in [list(EpochBatches(10, 3, seed=1))]] == [epochs[0][:9]]
    still = EpochBatches(4, 2, shuffle=False)
    assert list(still) == list(still) == [[0, 1], [2, 3]]


@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 2), (0, 2), (2, 0), (2, 1), (1, 3)])
def test_a_stopped_epoch_goes_on_with_exactly_the_rest(corpus, latents, before, after):
    """Also with another number of workers than it was begun with."""
    def loader(workers):
        return batch_loader(SpeechClips(corpus, latents=latents, roll=True), 2, seed=3, workers=workers)

    whole = loader(0)
    expected = [batch["latent"] for _ in range(3) for batch in whole]
    for stop in (1, 2, 3, 4):  # 3 is the end of the first epoch
        first, seen = loader(before), []
        while len(seen) < stop:
            for batch in first:
                seen.append(batch["latent"])
                if len(seen) == stop:
                    state = first.state_dict()
                    break
        second = loader(after)
        second.load_state_dict(state)
        rest = [batch["latent"] for batch in second] + [batch["latent"] for batch in second]
        want = expected[stop:stop + len(rest)]
        assert len(rest) >= 3 and all(torch.equal(a, b) for a, b in zip(rest, want, strict=True)), stop


@pytest.mark.parametrize(("before", "after", "rest"), [(2, 4, 8), (4, 2, 8), (3, 2, 10), (12, 2, 0)])
def test_an_epoch_goes_on_with_batches_of_another_size(before, after, rest):
    """No sample is left out; of a batch that was seen in part, all are seen again."""
    whole = sum(EpochBatches(12, 12, seed=1), [])
    first = iter(EpochBatches(12, before, seed=1, drop_last=False))
    seen = [key for _, batch in zip(range(max(1, 4 // before)), first, strict=False) for key in batch]
    second = iter(EpochBatches(12, after, seed=1, drop_last=False))
    second.load_state_dict(first.state_dict())
    left = sum(second, [])
    assert left == whole[len(whole) - len(left):] and set(seen) | set(left) >= set(whole)
    assert len(left) == rest


class Sum(L.LightningModule):
    """Notes what it sees."""

    def __init__(self, stop: int | None = None):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.stop, self.seen = stop, []

    def training_step(self, batch, _):
        if self.stop is not None and len(self.seen) == self.stop:
            raise KeyboardInterrupt
        self.seen.append(round(batch["latent"].double().sum().item(), 6))
        return self.weight * batch["latent"].mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_resumed_training_sees_what_an_unbroken_one_sees(corpus, latents, tmp_path):
    def trainer():
        checkpoint = L.pytorch.callbacks.ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1)
        return L.Trainer(max_steps=8, accelerator="cpu", logger=False, callbacks=[checkpoint],
                         enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path)

    def data():
        return PictureData(SpeechClips(corpus, latents=latents, roll=True), batch_size=2, seed=2)

    whole = Sum()
    trainer().fit(whole, data())
    assert len(whole.seen) == 8
    (tmp_path / "last.ckpt").unlink()
    first, second = Sum(stop=5), Sum()
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer().fit(first, data())
    trainer().fit(second, data(), ckpt_path=str(tmp_path / "last.ckpt"), weights_only=True)
    assert first.seen + second.seen == whole.seen


@needs_font
def test_captioned_pictures(tmp_path):
    class Tokenizer:
        model_max_length = 12

        def __call__(self, texts, **options):
            return SimpleNamespace(input_ids=[[len(t)] * options["max_length"] for t in texts])

    pictures = CaptionedPictures(6, Tokenizer(), seed=4)
    batch = pictures.__getitems__([1, 7])
    assert batch["picture"].shape == (2, 1, 256, 1024) and batch["input_ids"].shape == (2, 12)
    picture, caption, concept = pictures.sampler.sample(7)
    np.testing.assert_array_equal(batch["picture"][1, 0], picture / np.float32(255))
    assert batch["concept"][1] == concept and batch["input_ids"][1, 0] == len(caption)
    # Epochs draw new pictures; a cache holds those of the first, and its captions go with it.
    cache_latents(Averages(), pictures, tmp_path / "c", shard=6, progress=False)
    cached = CaptionedPictures(6, Tokenizer(), seed=4, latents=tmp_path / "c")
    again = cached.__getitems__([1, 7])
    assert again["latent"].shape == (2, 2, 16, 64) and torch.equal(again["latent"][0], again["latent"][1])
    assert torch.equal(again["input_ids"][0], batch["input_ids"][0])
    with pytest.raises(UserError, match="another dataset"):
        CaptionedPictures(6, seed=4, first=6, latents=tmp_path / "c").setup()


@pytest.fixture
def published(tmp_path) -> Path:
    """Three clips in the published layout, some listed twice, unsorted, low frequency first, in [-11, 0]."""
    (tmp_path / "spectograms").mkdir()
    names, texts = ["p_001", "p_002", "p_003"], ["happy baby", "green tree", "cold river"]
    for i, name in enumerate(names):
        mel = np.full((256, 1024), -11, np.float32)
        mel[:16] = -i
        np.save(tmp_path / "spectograms" / f"{name}.npy", mel)
    rows = [{"audio_prompt": texts[i], "mel_npy": f"/somewhere/else/spectograms/{names[i]}.npy"}
            for i in (2, 0, 1, 0, 2)]
    pandas.DataFrame(rows).to_csv(tmp_path / "manifest.csv", index=False)
    (tmp_path / "prompts_3.txt").write_text("cold river\nhappy baby\n\ngreen tree\n")
    np.savez(tmp_path / "plbert_sentence_emb_3.npz", emb=np.array([[3.0, 3], [1, 1], [2, 2]], np.float32),
             model_id="plbert", lang="en-us")
    return tmp_path


def test_the_published_layout_is_paired_by_name_and_text(published):
    clips = PublishedClips(published, value_range=(-11, 0), low_first=True)
    assert len(clips) == 3 and clips.names == ["p_001", "p_002", "p_003"] and clips.texts[0] == "happy baby"
    batch = clips.__getitems__([0, 1, 2])
    assert batch["embedding"].tolist() == [[1, 1], [2, 2], [3, 3]]
    assert batch["picture"].shape == (3, 1, 256, 1024)
    # Row 0 was the lowest frequency; here it is the last.
    np.testing.assert_allclose(batch["picture"][:, 0, -1, 0], [1, 10 / 11, 9 / 11], atol=1e-6)
    assert not batch["picture"][:, 0, :240].any()
    cache = cache_latents(Averages(), clips, published / "latents", progress=False)
    assert cache.shape == (2, 16, 64)
    (published / "prompts_3.txt").unlink()
    assert PublishedClips(published, (-11, 0)).__getitems__([0])["embedding"].tolist() == [[3, 3]]
    assert "embedding" not in PublishedClips(published, (-11, 0), embeddings=False).__getitems__([0])


def test_the_published_layouts_errors_come_all_at_once(published):
    np.save(published / "spectograms" / "p_001.npy", np.zeros((256, 1000), np.float32))
    np.save(published / "spectograms" / "p_002.npy", np.full((256, 1024), np.nan, np.float32))
    os.remove(published / "spectograms" / "p_003.npy")
    np.savez(published / "plbert_sentence_emb_4.npz", emb=np.zeros((4, 2), np.float32))
    with pytest.raises(UserError) as error:
        PublishedClips(published).setup()
    for told in ("(256, 1000)", "NaN", "line 2: no picture", "2 files plbert_sentence_emb*.npz"):
        assert told in str(error.value)
    with pytest.raises(UserError, match="no such manifest"):
        PublishedClips(published / "spectograms").setup()


def test_the_published_range_is_asked_for(published):
    with pytest.raises(UserError, match=r"values in \[-11, 0\] \(expected \[0, 1\]"):
        PublishedClips(published).setup()
    manifest = published / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("happy baby", "sad baby", 1))
    with pytest.raises(UserError, match="line 5: 'p_001' says 'happy baby' .before: 'sad baby'"):
        PublishedClips(published, (-11, 0)).setup()
    manifest.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no column audio_prompt, mel_npy"):
        PublishedClips(published, (-11, 0)).setup()
    with pytest.raises(UserError, match="lower value first"):
        PublishedClips(published, (0, -11))
