"""Metrics beside WER and CLIP: known answers, weights from folders, and what an evaluation writes of them."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from machine import needs_flite
from test_evaluate import compose, make_run, stand_ins  # noqa: F401
from tokenizers import pre_tokenizers
from transformers import (
    ClapAudioConfig,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapProcessor,
    ClapTextConfig,
    RobertaTokenizer,
    WhisperProcessor,
)

from images_that_speak.audio.distance import DECIBELS, warped_cepstral_distortion, warped_mean
from images_that_speak.audio.mel import MEL
from images_that_speak.audio.picture import write_png
from images_that_speak.audio.wave import read_wave, write_wave
from images_that_speak.config import instantiate
from images_that_speak.diffusion.outputs import write_sample
from images_that_speak.errors import UserError
from images_that_speak.files import read_json, write_json
from images_that_speak.scoring import evaluate as module
from images_that_speak.scoring import pairs
from images_that_speak.scoring.clap import ClapScore
from images_that_speak.scoring.dnsmos import FILES, Dnsmos
from images_that_speak.scoring.heard import Heard, SpeechReader, WhisperReader
from images_that_speak.scoring.items import Item
from images_that_speak.scoring.judges import Readers
from images_that_speak.scoring.metric import Clip
from images_that_speak.scoring.pairs import (
    CepstralDistortion,
    Intelligibility,
    PictureSimilarity,
    References,
    SpeechQuality,
    histogram_similarity,
    place,
    span,
)
from images_that_speak.scoring.reading import read_items
from images_that_speak.scoring.seen import load_picture_reader
from images_that_speak.scoring.sets import (
    ClipSquares,
    InceptionSquares,
    MelStatistics,
    PictureDistances,
    SoundDistances,
)
from images_that_speak.speech.tts import TTS, Phone, SpeechError, Utterance

BLACK = np.zeros((256, 1024), np.uint8)


def speech(seed: int = 0) -> np.ndarray:
    """10.24 s with a second of harmonics and syllables in the middle."""
    time = np.arange(16000) / 16000
    pitch = 2 * np.pi * (110 + 10 * seed + 15 * time) * time
    tone = sum(np.sin(k * pitch) / k for k in range(1, 16)) * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * time))
    wave = np.zeros(MEL.samples, np.float32)
    wave[74000:90000] = 0.15 * tone
    return wave


def clip(name: str = "a", wave: np.ndarray | None = None, picture: np.ndarray = BLACK,
         **more: object) -> Clip:
    return Clip(name, picture, speech() if wave is None else wave, **{"audio_prompt": "blue ocean", **more})


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """A folder with two samples, and a third that is but a sound."""
    for name, phrase, seed in (("a", "blue ocean", 0), ("b", "happy baby", 3)):
        write_wave(tmp_path / name / "speech.wav", speech(seed))
        pixels = np.random.default_rng(seed).integers(0, 256, (256, 1024)).astype(np.uint8)
        write_png(tmp_path / name / "image.png", pixels)
        write_json(tmp_path / name / "sample.json", {"sample_id": name, "audio_prompt": phrase})
    write_wave(tmp_path / "c.wav", speech(5))
    return tmp_path


# --- what a sample is compared with

def tones(*pitches: float) -> np.ndarray:
    return np.concatenate([np.sin(2 * np.pi * pitch * np.arange(4000) / 16000) for pitch in pitches])


def test_words_are_moved_to_where_they_were_planned() -> None:
    """Two words of a quarter second; the synthesiser calls one phone otherwise than the dictionary does."""
    said = [Phone("pau", 0, 0.1), Phone("b", 0.1, 0.2), Phone("ax", 0.2, 0.35), Phone("k", 0.35, 0.5),
            Phone("ae", 0.5, 0.6), Phone("pau", 0.6, 0.8)]
    wave = np.concatenate([np.zeros(1600), tones(500, 1500), np.zeros(3200)]).astype(np.float32)
    planned = [Phone("pau", 1, 2), Phone("b", 2, 2.1), Phone("ah", 2.1, 2.3), Phone("pau", 2.3, 3),
               Phone("k", 3, 3.1), Phone("ae", 3.1, 3.3), Phone("pau", 3.3, 4)]
    moved = place(Utterance(wave, said), planned, [["b", "ah"], ["k", "ae"]])
    assert moved.shape == (MEL.samples,) and moved.dtype == np.float32
    assert np.abs(moved).max() == pytest.approx(0.95)

    def pitch(start: float, end: float) -> float:
        part = moved[round(16000 * start):round(16000 * end)]
        return float(np.abs(np.fft.rfft(part)).argmax() * 16000 / len(part))

    assert pitch(2.02, 2.22) == pytest.approx(500, abs=5) and pitch(3.02, 3.22) == pytest.approx(1500, abs=5)
    sounding = np.flatnonzero(np.abs(moved) > 0.02) / 16000
    gaps = sounding[1:][np.diff(sounding) > 0.1]
    assert sounding[0] == pytest.approx(2, abs=0.01) and gaps == pytest.approx([3], abs=0.01)
    # Words that touch in the plan and in the speech are faded over one another without a dip.
    joined = [Phone("b", 2, 2.1), Phone("ah", 2.1, 2.25), Phone("k", 2.25, 2.35), Phone("ae", 2.35, 2.5)]
    whole = place(Utterance(wave, [*said[:2], Phone("ah", 0.2, 0.35), *said[3:]]), joined,
                  [["b", "ah"], ["k", "ae"]])
    assert whole[32160:39840] == pytest.approx(0.95 * wave[1760:9440], abs=0.03)
    # Without a plan the speech is in the middle.
    middle = np.flatnonzero(np.abs(place(Utterance(wave, said), [], [])) > 0.02) / 16000
    assert (middle[0] + middle[-1]) / 2 == pytest.approx(5.12, abs=0.01)


@needs_flite
def test_flite_speaks_as_planned() -> None:
    phones = [["b", 1.0, 1.1], ["l", 1.1, 1.2], ["uw", 1.2, 1.4], ["ow", 1.5, 1.6], ["sh", 1.6, 1.8],
              ["ax", 1.8, 1.9], ["n", 1.9, 2.0]]
    references = References("tts")
    found = references.of(clip(record={"phones": phones, "settings": {"voice": "rms"}}))
    assert found is not None and found[1].shape == (256, 1024)
    part = span(found[0], 0)
    assert 0.9 < part.start / 16000 < 1.2 and 1.7 < part.stop / 16000 < 2.3
    loud = np.flatnonzero(found[1].mean(0) > found[1].mean(0).max() / 2)
    assert 90 < loud.min() and loud.max() < 230
    assert references.of(clip(name="b", audio_prompt=None)) is None


class Speaker(TTS):
    """A flite of one voice, which cannot speak what is not ASCII."""

    name, version, voices = "flite", "1", ("slt",)

    def speak(self, text: str, voice: str) -> Utterance:
        self.check_voice(voice)
        if not text.isascii():
            raise SpeechError(f"tts=flite: {text!r} holds nothing to speak")
        return Utterance(tones(500).astype(np.float32), [Phone("b", 0, 0.25)])


def test_what_flite_cannot_say_costs_one_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "Flite", Speaker)
    metric = PictureSimilarity("tts")
    rows = metric.add([clip(record={"settings": {"voice": "p225"}}), clip(audio_prompt="日本"),
                       clip(audio_prompt="日本", record={"phones": [["b", 1.0, 1.1]]}), clip()])
    # One of VCTK's voices, of which flite knows nothing, is spoken by the metric's own.
    assert [set(row) for row in rows] == [{"ssim", "hss"}, set(), set(), {"ssim", "hss"}]
    assert metric.counted() == 1 and metric.total() == {}
    silent = PictureSimilarity("tts")
    silent.add([clip(audio_prompt="日本")])
    assert silent.total() == {}
    with pytest.raises(UserError, match="no voice 'p225'"):
        PictureSimilarity("tts", voice="p225")


def test_plain_sounds_are_found_by_the_names_of_pictures(tmp_path: Path) -> None:
    """As find_pictures names them: by their path, with its ending."""
    for number, name in enumerate(("x0", "a/x1", "b/x1", "take.1")):
        write_wave(tmp_path / f"{name}.wav", speech(number))
    pixels = np.random.default_rng(0).integers(0, 256, (256, 1024)).astype(np.uint8)
    write_png(tmp_path / "x0_img.png", pixels)
    write_png(tmp_path / "x0_spec.png", BLACK)
    references = References(str(tmp_path))
    for name, number in (("x0_img.png", 0), ("deep/x0.npy", 0), ("b/x1_img.png", 2), ("a/x1.png", 1),
                         ("take.1.png", 3)):
        found = references.of(clip(name))
        assert found is not None and found[0] == pytest.approx(speech(number), abs=1e-4)
        assert np.array_equal(found[1], pixels) == (number == 0)
    # Two are called x1, and which is meant nobody can know.
    assert references.of(clip("x1.png")) is None and references.of(clip("c/x1_img.png")) is None


def test_a_reference_is_found_by_name_or_by_phrase(reference: Path) -> None:
    references = References(str(reference))
    for name, phrase, seed in (("a", "whatever", 0), ("other", "happy baby", 3), ("c", None, 5)):
        found = references.of(clip(name, audio_prompt=phrase))
        assert found is not None and found[0] == pytest.approx(speech(seed), abs=1e-4)
    assert references.of(clip("other", audio_prompt="nothing like it")) is None
    assert len(references.used) == 3
    # Of several runs, samples are named by their path.
    found = references.of(clip("first/samples/b", audio_prompt=None))
    assert found is not None and found[0] == pytest.approx(speech(3), abs=1e-4)
    with pytest.raises(UserError, match="no such folder"):
        References(str(reference / "nowhere"))
    (reference / "empty").mkdir()
    with pytest.raises(UserError, match="neither samples"):
        References(str(reference / "empty"))
    metric = PictureSimilarity(str(reference))
    assert metric.add([clip("other", audio_prompt="nothing like it")]) == [{}]
    with pytest.raises(UserError, match="no sample of these phrases"):
        metric.total()


def test_a_reference_of_two_runs_is_refused(reference: Path) -> None:
    """Which of two samples of the same prompts and seed is meant nobody can know."""
    shutil.copytree(reference / "a", reference / "other/samples/a")
    with pytest.raises(UserError, match=rf"two samples a, {reference}/a and {reference}/other/samples/a"):
        References(str(reference))


# --- one sample and its reference

def test_similar_pictures(reference: Path) -> None:
    own = np.random.default_rng(0).integers(0, 256, (256, 1024)).astype(np.uint8)
    metric = PictureSimilarity(str(reference))
    same, other = metric.add([clip("a", picture=own), clip("b", picture=own)])
    assert same == {"ssim": pytest.approx(1), "hss": pytest.approx(1)}
    assert abs(other["ssim"] or 0) < 0.05
    # Of two gray levels: (2ab + c) / (a² + b² + c), c = 0.01².
    a, b = 51 / 255, 204 / 255
    found = metric.compare(clip(picture=np.full_like(BLACK, 51)), speech(), np.full_like(BLACK, 204))
    assert found["ssim"] == pytest.approx((2 * a * b + 1e-4) / (a * a + b * b + 1e-4), rel=1e-4)
    # Histograms of one level each: (0 − 1/256²) / (1/256 − 1/256²).
    assert found["hss"] == pytest.approx(-1 / 255)
    assert histogram_similarity(own, own[::-1]) == pytest.approx(1)


def test_the_same_speech_is_at_no_distance(reference: Path) -> None:
    # As it was stored: what rounding to 16 bits adds is nothing beside speech and much beside nothing.
    own = read_wave(reference / "a/speech.wav")
    noisy = own + 0.05 * np.random.default_rng(0).standard_normal(MEL.samples).astype(np.float32)
    clips = [clip("a", wave=own), clip("a", wave=noisy)]
    same, other = (row["mcd_dtw"] for row in CepstralDistortion(str(reference)).add(clips))
    assert same == pytest.approx(0, abs=1e-3) and other is not None and other > 2
    same, other = (row["stoi"] for row in Intelligibility(str(reference)).add(clips))
    assert same == pytest.approx(1, abs=1e-3) and other is not None and other < 0.95
    silent = clip("a", wave=np.zeros(MEL.samples, np.float32))
    assert all(np.isfinite(value) for value in CepstralDistortion(str(reference)).add([silent])[0].values())


def test_pesq(reference: Path) -> None:
    pytest.importorskip("pesq")
    metric = SpeechQuality(str(reference))
    own = read_wave(reference / "a/speech.wav")
    same, silent = metric.add([clip("a", wave=own), clip("a", wave=np.zeros(MEL.samples, np.float32))])
    assert same["pesq"] == pytest.approx(4.644, abs=0.01) and silent == {"pesq": None}


def test_speech_is_from_the_first_sound_to_the_last() -> None:
    wave = np.zeros(160000, np.float32)
    wave[32000:48000] = 0.5
    wave[80000:80160] = 0.1
    wave[100000:] = 0.5 * 10 ** (-45 / 20)  # too faint to count
    assert span(wave) == slice(32000 - 1600, 80160 + 1600)


class Given(torch.nn.Module):
    """A mel transform that answers with the wave itself: 256 bands, all the same in each frame."""

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        place = (torch.arange(256) + 0.5) / 256
        return torch.cos(2 * torch.pi * place)[None, :, None] * wave[:, None]


def test_warping_takes_no_notice_of_timing() -> None:
    """Frames hold ripples of some depth in nats, whose cepstrum is that depth at k = 2."""
    real = torch.tensor([[0.0, 1.0, 3.0, 2.0]])
    slow = torch.tensor([[0.0, 0.0, 0.0, 1.0, 3.0, 3.0, 2.0]])
    assert warped_cepstral_distortion(slow, real, analysis=Given()) == pytest.approx(0, abs=1e-5)
    # Everywhere 0.5 too deep: the depth's root mean square in dB.
    off = warped_cepstral_distortion(torch.full((1, 3), 0.5), torch.zeros(1, 5), analysis=Given())
    assert off == pytest.approx(0.5 / 2**0.5 * DECIBELS, rel=1e-5)


def test_the_path_is_the_cheapest() -> None:
    cost = np.random.default_rng(0).random((5, 6))

    def paths(i: int, j: int) -> list[tuple[float, int]]:
        if (i, j) == (0, 0):
            return [(cost[0, 0], 1)]
        steps = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        return [(total + cost[i, j], length + 1) for a, b in steps if a >= 0 and b >= 0
                for total, length in paths(a, b)]

    total, length = min(paths(4, 5))
    assert warped_mean(cost) == pytest.approx(total / length)


# --- a set and another

def test_a_set_is_at_no_distance_from_itself(reference: Path) -> None:
    waves = [read_wave(path) for path in sorted(reference.rglob("*.wav"))]
    metric = SoundDistances(MelStatistics(), str(reference))
    metric.load()
    assert metric.counted() == 3 and metric.add([clip(wave=wave) for wave in waves]) == [{}] * 3
    found = metric.total()
    assert found["fad_mel"] == pytest.approx(0, abs=1e-4) and found["kad_mel"] <= 0
    louder = SoundDistances(MelStatistics(), str(reference))
    louder.load()
    louder.add([clip(wave=wave + 0.01) for wave in waves])
    assert louder.total()["fad_mel"] > 1 and louder.total()["kad_mel"] > found["kad_mel"]


def test_a_louder_sound_moves_the_statistics_by_its_loudness() -> None:
    features = MelStatistics()
    features.load()
    noise = np.random.default_rng(0).standard_normal(MEL.samples).astype(np.float32)
    soft, loud = features.embed([0.01 * noise]), features.embed([0.1 * noise])
    assert soft.shape == (8, 64)
    # Ten times as loud: ln 10 more in every band, and no more variation.
    assert (loud - soft)[:, :32].numpy() == pytest.approx(np.log(10), abs=1e-3)
    assert (loud - soft)[:, 32:].numpy() == pytest.approx(0, abs=1e-3)


def test_pictures_are_compared_by_their_squares(reference: Path) -> None:
    metric = PictureDistances(ClipSquares(), str(reference))
    metric.load()
    assert metric.counted() == 2 and "pocket" in metric.weights
    pictures = [np.random.default_rng(seed).integers(0, 256, (256, 1024)).astype(np.uint8) for seed in (0, 3)]
    metric.add([clip(picture=picture) for picture in pictures])
    found = metric.total()
    assert found["fid_pocket"] == pytest.approx(0, abs=1e-4) and set(found) == {"fid_pocket", "kid_pocket"}
    vectors = metric.features.embed(pictures)
    every = load_picture_reader().embed_crops(pictures)
    torch.testing.assert_close(vectors, every[:, ::8].flatten(0, 1), rtol=1e-4, atol=1e-5)


def test_inception_from_a_file(reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights in the layout of the published ones."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Network

    torch.manual_seed(0)
    empty = io.BytesIO()
    torch.save({}, empty)
    with monkeypatch.context() as patch:
        patch.setattr(Network, "load_state_dict", lambda self, state: None)
        network = Network("inception", ["2048"], io.BytesIO(empty.getvalue()))
    file = reference / "weights/inception.pth"
    file.parent.mkdir()
    torch.save(network.state_dict(), file)
    features = InceptionSquares(str(file.parent))
    features.load()
    pixels = np.random.default_rng(0).integers(0, 256, (256, 1024)).astype(np.uint8)
    found = features.embed([pixels])
    assert found.shape == (4, 2048)
    square = torch.from_numpy(pixels[:, 512:768].copy()).expand(1, 3, -1, -1)
    torch.testing.assert_close(found[2], network(square)[0][0], rtol=1e-3, atol=1e-4)
    assert PictureDistances(features, str(reference)).names == ("fid", "kid") and features.name == ""
    file.write_bytes(b"no weights")
    with pytest.raises(UserError, match="not the weights of FID's Inception"):
        features.load()


# --- metrics that stand on weights

@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLAP of random weights, as transformers saves one."""
    folder = tmp_path_factory.mktemp("clap")
    torch.manual_seed(0)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *letters, "<mask>"]
    tokenizer = RobertaTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[],
                                 model_max_length=30)
    text = ClapTextConfig(vocab_size=len(tokens), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                          intermediate_size=16, max_position_embeddings=40, projection_dim=8)
    audio = ClapAudioConfig(window_size=4, num_mel_bins=16, spec_size=64, patch_size=2, patch_stride=[2, 2],
                            hidden_size=32, patch_embeds_hidden_size=16, depths=[1, 1],
                            num_attention_heads=[2, 2], num_hidden_layers=2, projection_dim=8)
    config = ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=8)
    ClapModel(config).save_pretrained(folder)
    extractor = ClapFeatureExtractor(feature_size=16, hop_length=4800, truncation="rand_trunc")
    ClapProcessor(extractor, tokenizer).save_pretrained(folder)
    return folder


def test_clap_from_a_folder(clap: Path, reference: Path) -> None:
    metric = ClapScore(str(clap))
    metric.load()
    noise = np.random.default_rng(0).standard_normal(MEL.samples).astype(np.float32)
    clips = [clip("a"), clip("b", wave=0.1 * noise), clip("c", audio_prompt=None)]
    rows = metric.add(clips)
    sounds = metric.clap.embed_waves([one.wave for one in clips])
    texts = metric.clap.embed_texts(["blue ocean", "happy baby"])
    assert sounds.norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)
    assert texts.norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)
    expected = (sounds @ texts[0]).clamp(min=0)
    assert [row["clap"] for row in rows[:2]] == pytest.approx(expected[:2].tolist(), abs=1e-5)
    assert rows[2] == {"clap": None} and not torch.equal(sounds[0], sounds[1])
    # The clip is longer than CLAP's ten seconds: it must not be cut at random.
    torch.testing.assert_close(metric.clap.embed_waves([noise, noise]).diff(dim=0), torch.zeros(1, 8))
    # FAD stands on the same embeddings.
    distances = instantiate({"_target_": "images_that_speak.scoring.sets.SoundDistances",
                             "features": {"_target_": "images_that_speak.scoring.sets.ClapSounds",
                                          "model": str(clap)}, "reference": str(reference)})
    distances.load()
    distances.add(clips)
    assert set(distances.total()) == {"fad_clap", "kad_clap"}
    with pytest.raises(UserError, match="nowhere: cannot be loaded"):
        broken = ClapScore(str(clap / "nowhere"))
        broken.load()


@pytest.mark.parametrize("answers", [True, False])
def test_a_hub_that_does_not_answer_is_not_asked_file_by_file(monkeypatch: pytest.MonkeyPatch,
                                                              answers: bool) -> None:
    """Each file would be tried for half a minute; without the hub only its cache is looked into."""
    def info(self: object, model: str, **options: object) -> None:
        if not answers:
            raise ConnectionError("no network")

    asked = []

    def load(*_: object, local_files_only: bool = False, **__: object) -> None:
        asked.append(local_files_only)
        raise OSError("not there")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", info)
    for kind in (ClapProcessor, WhisperProcessor):
        monkeypatch.setattr(kind, "from_pretrained", load)
    with pytest.raises(UserError, match="CLAP model=owner/clap: cannot be loaded"):
        ClapScore("owner/clap").load()
    with pytest.raises(UserError, match="reader.speech.model=owner/whisper"):
        WhisperReader("owner/whisper")
    assert asked == [not answers] * 2


def constant(path: Path, values: list[float], shape: list[object]) -> None:
    """An onnx model whose answer does not depend on its input."""
    from onnx import TensorProto, helper, numpy_helper, save

    rank = len(shape)
    axes = numpy_helper.from_array(np.arange(1, rank), "axes")
    zero = numpy_helper.from_array(np.zeros((1, 1), np.float32), "zero")
    answer = numpy_helper.from_array(np.array([values], np.float32), "answer")
    flat = numpy_helper.from_array(np.array([-1, 1]), "flat")
    nodes = [helper.make_node("ReduceMean", ["input_1", "axes"], ["mean"], keepdims=1),
             helper.make_node("Reshape", ["mean", "flat"], ["one"]),
             helper.make_node("Mul", ["one", "zero"], ["nothing"]),
             helper.make_node("Add", ["nothing", "answer"], ["output"])]
    graph = helper.make_graph(
        nodes, "constant", [helper.make_tensor_value_info("input_1", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", len(values)])],
        [axes, zero, answer, flat])
    path.parent.mkdir(parents=True, exist_ok=True)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def test_dnsmos_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # librosa, whose mels torchmetrics takes, compiles for ten seconds when it is imported; the answer of a
    # constant model does not depend on them.
    monkeypatch.setattr("torchmetrics.functional.audio.dnsmos._audio_melspec",
                        lambda audio: np.zeros((len(audio), 900, 120)))
    with pytest.raises(UserError, match=r"metrics.dnsmos.weights: no value"):
        Dnsmos(None)
    constant(tmp_path / FILES[0], [2.5], ["n", "t", 120])
    with pytest.raises(UserError, match=r"no DNSMOS/sig_bak_ovr.onnx there"):
        Dnsmos(str(tmp_path))
    constant(tmp_path / FILES[1], [3.0, 2.0, 1.0], ["n", 144160])
    metric = Dnsmos(str(tmp_path))
    metric.load()
    row, = metric.add([clip()])
    # The polynomials that Microsoft's script puts behind its network.
    assert row == {"dnsmos_p808": pytest.approx(2.5),
                   "dnsmos_sig": pytest.approx(-0.08397278 * 9 + 1.22083953 * 3 + 0.0052439),
                   "dnsmos_bak": pytest.approx(-0.13166888 * 4 + 1.60915514 * 2 - 0.39604546),
                   "dnsmos_ovr": pytest.approx(-0.06766283 + 1.11546468 + 0.04602535)}
    (tmp_path / FILES[1]).write_bytes(b"no model")
    metric.load()
    with pytest.raises(UserError, match="not DNSMOS's models"):
        metric.add([clip()])


# --- an evaluation

class Quiet:
    """A vocoder whose sounds lie largely below a step of 16 bits, where rounding is heard first."""

    def decode_message(self, pictures: np.ndarray) -> torch.Tensor:
        levels = pictures if pictures.dtype == np.uint8 else np.round(255 * pictures)
        seeds = [int(picture[0, 0]) for picture in levels]
        noise = [np.random.default_rng(seed).normal(size=163_840) for seed in seeds]
        return 2e-5 * torch.from_numpy(np.stack(noise)).float()


class Deaf(SpeechReader):
    name, normaliser = "deaf", "plain"

    def read(self, wave: np.ndarray) -> Heard:
        return Heard("", ())


def test_a_run_is_at_no_distance_from_itself(tmp_path: Path) -> None:
    """Its pictures played are rounded as the files are that they are compared with."""
    items = []
    for number in range(3):
        picture = np.full((256, 1024), number / 3, np.float32)
        write_sample(tmp_path / str(number), picture, Quiet(), {"sample_id": str(number)})
        items.append(Item(str(number), tmp_path / str(number) / "image.png"))
    metric = SoundDistances(MelStatistics(), str(tmp_path))
    metric.load()
    read_items(items, Readers(Deaf()), Quiet(), {"fad_mel": metric})
    assert metric.total()["fad_mel"] == pytest.approx(0, abs=1e-4)


def test_an_evaluation_tells_what_each_figure_stands_on(
        tmp_path: Path, stand_ins: None, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    run = make_run(tmp_path / "run")
    result = module.evaluate(compose(tmp_path, f"run={run}", f"reference={run}", "metrics=[ssim,fad_mel]",
                                     f"metrics.ssim.reference={run}"))
    assert result["ssim"] == pytest.approx(1) and result["ssim_interval"] == pytest.approx([1, 1])
    assert result["samples"] == 9 and result["wer"] == pytest.approx(6 / 27)
    assert {"fad_mel", "kad_mel", "hss"} <= set(result)
    rows = {row["metric"]: row for row in result["metrics"]}
    assert list(rows) == ["ssim", "hss", "fad_mel", "kad_mel"]
    for row in rows.values():
        assert (row["samples"], row["references"], row["reference"]) == (9, 9, str(run))
        assert row["weights"] == "none" and len(row["protocol"]) > 20
    scores = read_json(run / "samples/s01/sample.json")["scores"]
    assert scores["ssim"] == pytest.approx(1) and scores["wer"] == 1
    folder = next((tmp_path / "logs/evaluate").iterdir())
    assert (folder / "metrics.csv").read_text().startswith("metric,value,samples,reference,references,")
    assert "| fad_mel |" in (folder / "metrics.md").read_text()
    assert ",ssim,hss," in (folder / "samples.csv").read_text().splitlines()[0]
    assert "fad_mel" in capsys.readouterr().out


@pytest.mark.parametrize(("choice", "said"), [
    (["metrics=fid"], "metrics.fid.features.weights: no value"),
    (["metrics=fad_mel"], "reference: no value"),
    (["metrics=fad_mel", "reference=/nowhere"], "reference=/nowhere: no such folder"),
    (["metrics=dnsmos"], "metrics.dnsmos.weights: no value"),
    (["metrics=fad_mel", "reference={broken}"], "b.wav: sampling rate 22050 Hz"),
    (["metrics=fid_pocket", "reference={broken}"], "b.png: not a readable picture"),
])
def test_what_a_metric_lacks_is_told_before_anything_is_read(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: list[str], said: str) -> None:
    monkeypatch.setattr(module, "load_readers", lambda *_: pytest.fail("read too early"))
    run = make_run(tmp_path / "run")
    broken = tmp_path / "broken"
    broken.mkdir()
    for name, rate in (("a", 16_000), ("b", 22_050)):
        write_wave(broken / f"{name}.wav", speech(), rate)
    whole = (run / "samples/s00/image.png").read_bytes()
    (broken / "a.png").write_bytes(whole)
    (broken / "b.png").write_bytes(whole[:60])
    with pytest.raises(UserError, match=said):
        module.evaluate(compose(tmp_path, f"run={run}", *(text.format(broken=broken) for text in choice)))
