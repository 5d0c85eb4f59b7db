"""Published corpora: folders of exactly their layouts, made small, become corpora of this project."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from machine import needs_flite

from images_that_speak.data.manifest import Corpus
from images_that_speak.data.recordings import (
    CTCAligner,
    build_recordings,
    make_aligner,
    plan_recordings,
)
from images_that_speak.errors import UserError
from images_that_speak.networks.recogniser import PhoneRecogniser
from images_that_speak.resources import ROOT
from images_that_speak.speech.phonemes import PHONES, text_to_phones
from images_that_speak.speech.tts import Flite, SpeechError, resample


def sound(path: Path, rate: int, wave: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(rate) if wave is None else resample(wave, 16_000, rate), rate)


def ljspeech(root: Path, wave: np.ndarray | None = None) -> None:
    (root / "metadata.csv").write_text(
        "LJ001-0001|Printing, in 1450|Printing, in fourteen fifty\n"
        'LJ001-0002|"in being|"in being\n'
        "LJ001-0003|и alone|и alone\n", encoding="utf-8")
    for name in ("LJ001-0001", "LJ001-0002", "LJ001-0003"):
        sound(root / f"wavs/{name}.wav", 22_050, wave)


def libritts_r(root: Path, wave: np.ndarray | None = None) -> None:
    for subset, name, text in (("train-clean-100", "103_1240_000000_000001", "Happy dogs."),
                               ("dev-clean", "84_121123_000007_000001", "Go! Do you hear?"),
                               ("test-other", "1688_142285_000000_000000", "There's iron, they say.")):
        speaker, chapter, *_ = name.split("_")
        folder = root / subset / speaker / chapter
        sound(folder / f"{name}.wav", 24_000, wave)
        (folder / f"{name}.normalized.txt").write_text(text)
        (folder / f"{name}.original.txt").write_text(text.upper())


def vctk(root: Path, wave: np.ndarray | None = None) -> None:
    for speaker, number, text in (("p225", "001", "Please call Stella.\n"), ("p226", "002", "Ask her.\n")):
        (root / f"txt/{speaker}").mkdir(parents=True)
        (root / f"txt/{speaker}/{speaker}_{number}.txt").write_text(text)
        for mic in (1, 2):
            sound(root / f"wav48_silence_trimmed/{speaker}/{speaker}_{number}_mic{mic}.flac", 48_000, wave)
    sound(root / "wav48_silence_trimmed/p315/p315_001_mic1.flac", 48_000)  # published without a text


def speech_commands(root: Path, wave: np.ndarray | None = None) -> None:
    for name in ("yes/0a7c2a8d_nohash_0.wav", "yes/0a7c2a8d_nohash_1.wav", "stop/1b4c9b89_nohash_0.wav",
                 "happy/2c6d3924_nohash_0.wav"):
        sound(root / name, 16_000, wave)
    sound(root / "_background_noise_/white_noise.wav", 16_000)
    (root / "validation_list.txt").write_text("stop/1b4c9b89_nohash_0.wav\n")
    (root / "testing_list.txt").write_text("happy/2c6d3924_nohash_0.wav\n")


def speech_coco(root: Path, wave: np.ndarray | None = None) -> None:
    for part, name, text in (("train2014", "298817_26763_Phil_None_0-9", "A group of turkeys with bushes."),
                             ("val2014", "108505_147972_Amanda_Middle_1-1", "Person using a, um, phone.")):
        image, caption, speaker, *_ = name.split("_")
        sound(root / f"{part}/wav/{name}.wav", 16_000, wave)
        (root / part / "json").mkdir(parents=True)
        (root / part / f"json/{name}.json").write_text(json.dumps({
            "duration": 1.0, "speaker": speaker, "synthesisedCaption": text, "timecode": [[0.0, "WORD", "a"]],
            "speed": 0.9, "wavFilename": f"{name}.wav", "captionID": int(caption), "imgID": int(image),
            "disfluency": ["None"]}))


LAYOUTS = {"ljspeech": ljspeech, "libritts_r": libritts_r, "vctk": vctk, "speech_commands": speech_commands,
           "speech_coco": speech_coco}
EXPECTED = {
    "ljspeech": {("wavs/LJ001-0001.wav", "printing in fourteen fifty", "ljspeech"),
                 ("wavs/LJ001-0002.wav", "in being", "ljspeech")},
    "libritts_r": {
        ("train-clean-100/103/1240/103_1240_000000_000001.wav", "happy dogs", "103", "train"),
        ("dev-clean/84/121123/84_121123_000007_000001.wav", "go do you hear", "84", "valid"),
        ("test-other/1688/142285/1688_142285_000000_000000.wav", "there's iron they say", "1688", "test")},
    "vctk": {("wav48_silence_trimmed/p225/p225_001_mic1.flac", "please call stella", "p225"),
             ("wav48_silence_trimmed/p226/p226_002_mic1.flac", "ask her", "p226")},
    "speech_commands": {("yes/0a7c2a8d_nohash_0.wav", "yes", "0a7c2a8d", "train"),
                        ("yes/0a7c2a8d_nohash_1.wav", "yes", "0a7c2a8d", "train"),
                        ("stop/1b4c9b89_nohash_0.wav", "stop", "1b4c9b89", "valid"),
                        ("happy/2c6d3924_nohash_0.wav", "happy", "2c6d3924", "test")},
    "speech_coco": {("train2014/wav/298817_26763_Phil_None_0-9.wav", "a group of turkeys with bushes", "Phil",
                     "train"),
                    ("val2014/wav/108505_147972_Amanda_Middle_1-1.wav", "person using a um phone", "Amanda")},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_folder_is_read(name: str, tmp_path: Path) -> None:
    LAYOUTS[name](tmp_path)
    plan, unsaid = plan_recordings(name, tmp_path)
    assert {(p.recording, p.text, p.voice) for p in plan} == {row[:3] for row in EXPECTED[name]}
    splits = {p.recording: p.split for p in plan}
    assert all(splits[path] == split for path, _, _, *published in EXPECTED[name] for split in published)
    assert all((tmp_path / p.recording).exists() for p in plan)
    assert {p.split for p in plan} <= {"train", "valid", "test"}
    if name == "speech_coco":
        assert next(p.split for p in plan if p.voice == "Amanda") != "train"
    assert [path for path, _ in unsaid] == (["wavs/LJ001-0003.wav"] if name == "ljspeech" else [])
    assert plan_recordings(name, tmp_path)[0] == plan
    assert [p.recording for p in plan_recordings(name, tmp_path, seed=0, limit=1)[0]] == [plan[0].recording]


def test_a_recording_named_twice_is_one_clip(tmp_path: Path) -> None:
    ljspeech(tmp_path)
    again = (tmp_path / "metadata.csv").read_text(encoding="utf-8").splitlines()[0]
    with open(tmp_path / "metadata.csv", "a", encoding="utf-8") as file:
        file.write(f"{again}\n{again}\nLJ001-0002|something else|something else\n")
    plan, unsaid = plan_recordings("ljspeech", tmp_path)
    assert [prompt.recording for prompt in plan] == ["wavs/LJ001-0001.wav"]
    assert dict(unsaid)["wavs/LJ001-0002.wav"] == "named 2 times, with different texts"


def test_speakers_are_chosen_and_mistakes_named(tmp_path: Path) -> None:
    vctk(tmp_path)
    assert [p.voice for p in plan_recordings("vctk", tmp_path, speakers=["p226"])[0]] == ["p226"]
    for name, folder, options, said in (
            ("vctk", tmp_path, {"speakers": ["p999"]}, "speakers p999"),
            ("vkct", tmp_path, {}, "Did you mean 'vctk'"),
            ("vctk", tmp_path / "none", {}, "no such folder"),
            ("ljspeech", tmp_path, {}, "metadata.csv: no such"),
            ("libritts_r", tmp_path, {}, "published layout"),
            ("vctk", tmp_path, {"splits": {"valid": 3}}, r"data.splits=.*expected fractions")):
        with pytest.raises(UserError, match=said):
            plan_recordings(name, folder, **options)
    with pytest.raises(UserError, match="Did you mean 'pocketsphinx'"):
        make_aligner("pocketsphynx")
    with pytest.raises(UserError, match="data.recogniser=DIR"):
        make_aligner("ctc")


@pytest.mark.parametrize("text", [
    "\ufeffLJ-1|A cat.|a cat\nLJ-2|A dog.|a dog\n",
    "LJ-1.wav|A cat.|a cat\r\nwavs/LJ-2.wav|A dog.|a dog\r\n",
    "LJ-1 | A cat. | a cat \n LJ-2 | A dog. | a dog\n\n",
    "LJ-1|a cat\nLJ-2|a dog",
    "LJ-1|a cat|\nLJ-2|a dog|\n",
    "LJ-1|A\u2028cat.|a\u2028cat\nLJ-2|a dog|a\x85dog\n",
])
def test_metadata_is_read_as_people_write_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text(text, encoding="utf-8", newline="")
    plan, unsaid = plan_recordings("ljspeech", tmp_path)
    assert {(p.recording, p.text) for p in plan} == {("wavs/LJ-1.wav", "a cat"), ("wavs/LJ-2.wav", "a dog")}
    assert not unsaid


@pytest.mark.parametrize(("text", "said"), [
    ("LJ-1|a cat\nLJ-2|a|dog|barks\n", r"line 2 .*has 3 bars .expected id . text"),
    ("LJ-1,a cat\n", "line 1 .*has 0 bars"),
    ("LJ-1|Я\nLJ-2|Ж\n", "of 2 none can be said, the first: .*Я"),
])
def test_metadata_that_cannot_be_read_is_told(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        plan_recordings("ljspeech", tmp_path)


@pytest.mark.parametrize(("wave", "rate"), [
    (np.zeros(0), 22_050), (np.zeros(1), 22_050), (np.full(9000, np.nan), 22_050), (np.zeros(9000), 22_050)])
def test_a_recording_without_sound_ends_no_build(wave: np.ndarray, rate: int, tmp_path: Path) -> None:
    """Alone it is an error that says why; beside others it would be one that failed."""
    (tmp_path / "lj/wavs").mkdir(parents=True)
    soundfile.write(tmp_path / "lj/wavs/a.wav", wave, rate, subtype="FLOAT")
    (tmp_path / "lj/metadata.csv").write_text("a|a cat\n")
    with pytest.raises(UserError, match=r"no clip could be built; 0 left out, 1 failed.*(sound|NaN)"):
        build_recordings(tmp_path / "corpus", "ljspeech", tmp_path / "lj", workers=1)
    assert "a cat" in (tmp_path / "corpus/bad.csv").read_text()


@needs_flite
def test_recordings_become_clips(tmp_path: Path) -> None:
    """Spoken by flite, kept as VCTK is: the corpus holds its sound, and its phones where flite had them."""
    folder, root = tmp_path / "vctk", tmp_path / "corpus"
    spoken = {}
    for number, text in enumerate(("seven happy dogs", "a green garden", "hello hello")):
        spoken[text] = Flite().speak(text, "slt")
        sound(folder / f"wav48/p225/p225_{number:03d}.wav", 48_000, spoken[text].wave)
        (folder / "txt/p225").mkdir(parents=True, exist_ok=True)
        (folder / f"txt/p225/p225_{number:03d}.txt").write_text(f"{text.capitalize()}.\n")
    sound(folder / "wav48/p225/p225_003.wav", 48_000, np.ones(16 * 16_000, np.float32) * 0.1)
    (folder / "txt/p225/p225_003.txt").write_text("Much too long.")
    (folder / "txt/p225/p225_004.txt").write_text("Never recorded.")
    summary = build_recordings(root, "vctk", folder, workers=1)
    assert summary.clips == summary.built == 3
    assert [bad.reason.split(" s of")[0] for bad in summary.left_out] == ["16.00"]
    assert len(summary.bad) == 1 and "p225_004" in summary.bad[0].reason
    assert f"what, and why: {root}/bad.csv" in str(summary) and "p225_004" in (root / "bad.csv").read_text()
    corpus = Corpus.open(root)
    assert set(corpus.table["text"]) == set(spoken) and set(corpus.table["voice"]) == {"p225"}
    for i, text in enumerate(corpus.table["text"]):
        found = [phone for phone in corpus.phones(i) if phone.symbol != "pau"]
        truth = [phone for phone in spoken[text].phones if phone.symbol != "pau"]
        assert [p.symbol for p in found] == [p for word in text_to_phones(text) for p in word]
        lengths = [f.end - f.start for f in (found[0], found[-1])]
        assert min(lengths) > 0
        whole = (found[-1].end - found[0].start) - (truth[-1].end - truth[0].start)
        assert abs(whole) < 0.15
    assert build_recordings(root, "vctk", folder, workers=1).built == 0
    assert "Recordings of vctk" in (root / "data_card.md").read_text()
    with pytest.raises(UserError, match="built otherwise"):
        build_recordings(root, "vctk", folder, workers=1, seed=5)


@needs_flite
def test_the_shipped_recogniser_finds_the_phones_that_flite_timed() -> None:
    spoken = Flite().speak("seven happy dogs sleep in the garden", "slt")
    aligner, _ = make_aligner("ctc", ROOT / "weights/pocket/ctc")
    found, truth = ([phone for phone in phones if phone.symbol != "pau"] for phones in (
        aligner(spoken.wave, "seven happy dogs sleep in the garden"), spoken.phones))
    off = np.abs([a.start - b.start for a, b in zip(found, truth, strict=True)])
    assert np.median(off) < 0.03 and off.max() < 0.15  # seconds


def test_a_recogniser_aligns_what_it_emits(tmp_path: Path) -> None:
    """An untrained network: the phones asked for, in order, within the sound."""
    torch.manual_seed(0)
    network = PhoneRecogniser(["<blank>", *PHONES[3:]], dim=8, layers=1)
    network.save_pretrained(tmp_path)
    aligner, version = make_aligner("ctc", tmp_path)
    assert isinstance(aligner, CTCAligner) and version.startswith("ctc-")
    wave = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 0.1
    phones = aligner(wave, "a cat")
    assert [p.symbol for p in phones if p.symbol != "pau"] == ["ax", "k", "ae", "t"]
    assert phones[0].start == 0 and phones[-1].end <= 1.0 + 1e-6
    assert all(abs(a.end - b.start) < 1e-6 for a, b in zip(phones, phones[1:], strict=False))
    with pytest.raises(SpeechError, match="no sound"):
        aligner(np.zeros(16_000, np.float32), "a cat")
    with pytest.raises(UserError, match="holds no recogniser"):
        make_aligner("ctc", tmp_path / "none")
