from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from machine import needs_flite

from images_that_speak.audio.mel import MEL
from images_that_speak.data import clips
from images_that_speak.data.corpus import Corpus, build_corpus, verify_corpus
from images_that_speak.data.phrases import dictionary_words, draw_prompts, held_out_phrases, split_of
from images_that_speak.errors import UserError
from images_that_speak.resources import ROOT
from images_that_speak.speech.tts import TTS, Phone, SpeechError, Utterance

WORDS = ["apple", "banana", "cat", "dog", "egg", "fish", "goat", "hat"]
RATE = MEL.sample_rate


class Tones(TTS):
    """Speaks each letter as a tone of its own for 50 ms, so what is heard where can be computed."""

    name, version, voices = "tones", "1", ("low", "high")

    def speak(self, text, voice):
        self.check_voice(voice)
        if "egg egg" in text:
            raise SpeechError("no egg twice")
        wave, phones, clock = [np.zeros(3200)], [Phone("pau", 0, 0.2)], 0.2
        for letter in text.replace(" ", ""):
            wave.append(0.3 * np.sin(2 * np.pi * pitch(letter, voice) * np.arange(800) / RATE))
            phones.append(Phone(letter, clock, clock + 0.05))
            clock += 0.05
        wave.append(np.zeros(3200))
        return Utterance(np.concatenate(wave).astype(np.float32), [*phones, Phone("pau", clock, clock + 0.2)])


def pitch(letter: str, voice: str) -> float:
    return (400 if voice == "low" else 3000) + 80 * (ord(letter) - ord("a"))


def build(root, **changes):
    settings = {"words": WORDS, "prompts": 6, "words_per_prompt": (1, 4), "voices": {"low": 0.5, "high": 0.5},
                "tts": Tones(), "workers": 1, "verify": 6}
    return build_corpus(root, **(settings | changes))


def contents(root: Path) -> dict[str, bytes]:
    """Everything in a corpus but the lock; parquet compared as a table elsewhere."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*"))
            if path.is_file() and path.name != ".lock"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    return root, build(root)


@pytest.fixture
def copy(built, tmp_path):
    shutil.copytree(built[0], tmp_path / "copy")
    return tmp_path / "copy"


# Prompts


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), low=st.integers(1, 5), more=st.integers(0, 6), count=st.integers(1, 40))
def test_a_larger_corpus_begins_with_the_smaller_one(seed, low, more, count):
    def draw(n):
        return draw_prompts(WORDS, n, (low, low + more), {"slt": 1, "rms": 1}, seed,
                            extra=["zoo", "yak", "box", "cup"])

    try:
        prompts = draw(count)
    except UserError:
        assert low + more <= 2  # twelve words do run out
        return
    assert prompts[: count // 2] == (draw(count // 2) if count > 1 else [])
    assert len({prompt.text for prompt in prompts}) == count
    for prompt in prompts:
        spoken = prompt.text.split()
        assert low <= len(spoken) <= low + more
        assert all(a != b for a, b in zip(spoken, spoken[1:], strict=False))


def test_order_is_random_and_shares_are_kept():
    prompts = draw_prompts(WORDS, 2000, (3, 9), {"slt": 0.6, "rms": 0.4}, extra=("yak", "zoo", "xylem"))
    spoken = [word for prompt in prompts for word in prompt.text.split()]
    assert abs(np.mean([word in WORDS for word in spoken]) - 0.6) < 0.05
    assert abs(np.mean([prompt.voice == "slt" for prompt in prompts]) - 0.6) < 0.05
    assert {len(prompt.text.split()) for prompt in prompts} == set(range(3, 10))
    ordered = np.mean([prompt.text.split() == sorted(prompt.text.split()) for prompt in prompts])
    assert ordered < 0.1 and [p.text for p in prompts] != sorted(p.text for p in prompts)
    first, second = (draw_prompts(WORDS, 5, (3, 9), {"slt": 1}, seed=seed) for seed in (1, 2))
    assert first != second


def test_splits_are_by_phrase():
    fractions = {"valid": 0.1, "test": 0.2}
    found = [split_of(f"phrase {i}", fractions) for i in range(4000)]
    assert [round(found.count(name) / 4000, 1) for name in ("train", "valid", "test")] == [0.7, 0.1, 0.2]
    assert split_of("a cat", fractions) == split_of("a cat", fractions)


def test_held_out_phrases_are_in_no_prompt(tmp_path):
    (tmp_path / "a.csv").write_text("image_prompt,audio_prompt\na castle,Cat  dog\n")
    (tmp_path / "b.txt").write_text("egg fish\n\n")
    held = held_out_phrases([str(tmp_path / "*.csv"), str(tmp_path / "b.txt")])
    assert held == {"cat dog", "egg fish"}
    prompts = draw_prompts(WORDS[2:6], 150, (3, 5), {"slt": 1}, held_out=held)
    spoken = [f" {prompt.text} " for prompt in prompts]
    assert not any(" cat dog " in text or " egg fish " in text for text in spoken)


def test_held_out_files_are_checked(tmp_path):
    (tmp_path / "a.csv").write_text("image,sound\na,b\n")
    with pytest.raises(UserError, match="no column 'audio_prompt'"):
        held_out_phrases(str(tmp_path / "a.csv"))
    with pytest.raises(UserError, match="no such file"):
        held_out_phrases(str(tmp_path / "none.csv"))
    assert held_out_phrases(str(tmp_path / "none*.csv")) == set()


def test_dictionary_words_are_short_and_plain():
    words = dictionary_words(500, 3, frozenset(WORDS))
    assert len(set(words)) == 500 and not set(words) & set(WORDS)
    assert all(word.isalpha() and word.islower() and 2 <= len(word) <= 10 for word in words)
    assert words[:100] == dictionary_words(100, 3, frozenset(WORDS))


@pytest.mark.parametrize("changes, message", [
    ({"words_per_prompt": (5, 3)}, "words_per_prompt"), ({"words_per_prompt": (0, 3)}, "words_per_prompt"),
    ({"words_per_prompt": (90, 99)}, "only 8 words"), ({"prompts": 0}, "prompts=0"),
    ({"prompts": 50, "words_per_prompt": (1, 1)}, "no more than 8"), ({"voices": {}}, "voices"),
    ({"voices": {"low": -1}}, "voices"), ({"voices": {"hihg": 1}}, "Did you mean 'high'"),
    ({"closed_fraction": 1.5}, "closed_fraction=1.5"), ({"splits": {"valid": 0.7, "test": 0.7}}, "splits"),
    ({"words": ["cat", "Ж"]}, "'Ж'"), ({"words": "no_such.txt"}, "no_such.txt"),
    ({"workers": -1}, "workers=-1"),
    ({"extra_words": 10**7}, "extra_words"), ({"tts": "fleet"}, "expected one of"),
])
def test_a_bad_argument_is_named(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        build(tmp_path / "corpus", **changes)
    assert not (tmp_path / "corpus").exists()


# Placing


@settings(max_examples=20, deadline=None)
@given(text=st.text("abcdefgh", min_size=1, max_size=200), voice=st.sampled_from(Tones.voices),
       seed=st.integers(0, 2**31))
def test_what_is_spoken_is_heard_where_the_phones_say(text, voice, seed):
    spoken = Tones().speak(text, voice)
    if len(text) * 0.05 + 0.17 > MEL.seconds:
        with pytest.raises(clips.DoesNotFit):
            clips.place(spoken, seed, MEL.samples, RATE)
        return
    placed = clips.place(spoken, seed, MEL.samples, RATE)
    assert placed.wave.shape == (MEL.samples,) and placed.wave.dtype == np.int16
    assert abs(np.abs(placed.wave).max() / 32768 - clips.PEAK) < 0.01
    assert "".join(phone.symbol for phone in placed.phones) == text
    for phone in placed.phones:
        piece = placed.wave[round(phone.start * RATE): round(phone.end * RATE)]
        peak = np.argmax(np.abs(np.fft.rfft(piece, RATE)))
        assert abs(peak - pitch(phone.symbol, voice)) < 15
    first, last = round(placed.phones[0].start * RATE), round(placed.phones[-1].end * RATE)
    assert not placed.wave[:first - 2].any() and not placed.wave[last + 2:].any()


def test_starts_differ_and_fill_the_picture():
    spoken = Tones().speak("abc", "low")
    starts = [clips.place(spoken, seed, MEL.samples, RATE).phones[0].start for seed in range(200)]
    assert min(starts) < 1 and max(starts) > 9 and abs(np.mean(starts) - 5) < 0.6


@pytest.mark.parametrize("wave", [np.zeros(8000), np.full(8000, np.nan), np.zeros(0), np.ones(100)])
def test_a_broken_utterance_is_refused(wave):
    with pytest.raises(SpeechError):
        clips.place(Utterance(wave, [Phone("a", 0.1, 0.4)]), 0, MEL.samples, RATE)


def test_a_tone_is_drawn_in_its_row_at_its_time():
    placed = clips.place(Tones().speak("a", "high"), 5, MEL.samples, RATE)
    picture = clips.Picturer().draw(placed.wave)
    assert picture.shape == (256, 1024) and picture.dtype == np.uint8
    middle = int((placed.phones[0].start + placed.phones[0].end) / 2 / 0.01)
    # Slaney: 15 mel at 1 kHz, then 27 to the factor 6.4; 256 bands between 0 and 8 kHz.
    def mel(hertz):
        return 15 + 27 * np.log(hertz / 1000) / np.log(6.4)

    band = mel(3000) / mel(8000) * 257 - 1
    assert abs((255 - picture[:, middle].argmax()) - band) <= 1
    quiet = np.delete(picture, np.arange(max(middle - 20, 0), middle + 20), axis=1)
    assert not quiet.any()


# Building


def test_a_build_says_what_it_made(built):
    root, summary = built
    corpus = Corpus.open(root)
    assert summary.clips == summary.built == len(corpus) == 6 and not summary.bad and not summary.left_out
    assert sum(summary.splits.values()) == 6
    assert corpus.table["id"].is_unique and set(corpus.table["tts"]) == {"tones"}
    assert set(corpus.table["mel_spec"]) == {MEL.hash}
    assert {path.stem for path in (root / "wav").iterdir()} == set(corpus.table["id"])
    for i in range(6):
        phones, row = corpus.phones(i), corpus.table.iloc[i]
        assert "".join(phone.symbol for phone in phones) == row["text"].replace(" ", "")
        assert row["start"] == phones[0].start
        assert abs(row["seconds"] - 0.05 * len(phones)) < 1e-3
        picture = corpus.picture(i)
        assert isinstance(picture, np.memmap) and picture.shape == (256, 1024)
        assert abs(np.abs(corpus.wave(i)).max() - clips.PEAK) < 0.01
    assert "| clips | 6 |" in (root / "data_card.md").read_text()


def test_the_same_command_again_makes_nothing(copy):
    before = contents(copy)
    summary = build(copy)
    assert (summary.built, summary.kept) == (0, 6) and contents(copy) == before


def test_lost_files_are_made_again_and_a_larger_corpus_keeps_the_old_clips(copy):
    before = contents(copy)
    ids = list(Corpus.open(copy).table["id"])
    clips.paths(copy, ids[0])["spectrogram"].unlink()
    clips.paths(copy, ids[1])["record"].write_text("{half a rec")
    (copy / "wav" / ".half.1234.tmp.flac").write_bytes(b"half")
    (copy / "manifest.parquet").unlink()
    assert build(copy).built == 2 and contents(copy) == before
    summary = build(copy, prompts=9)
    assert (summary.built, summary.kept) == (3, 6) and list(Corpus.open(copy).table["id"])[:6] == ids


def test_phrases_that_do_not_fit_or_fail_are_reported_not_cut(tmp_path):
    words = ["a" * 60, "b" * 60, "c" * 60, "d" * 70, "egg"]
    summary = build(tmp_path, words=words, words_per_prompt=(2, 5), prompts=20)
    listed = pandas.read_csv(tmp_path / "bad.csv")
    assert summary.left_out and summary.clips + len(summary.left_out) + len(summary.bad) == 20
    assert set(listed["id"]) == {clip.id for clip in [*summary.left_out, *summary.bad]}
    assert all("s of speech in a picture of 10.24 s" in clip.reason for clip in summary.left_out)
    assert build(tmp_path, words=words, words_per_prompt=(2, 5), prompts=20).left_out == summary.left_out


def test_a_phrase_the_synthesiser_refuses_is_bad_and_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(Tones, "speak", _refusing(Tones.speak))
    summary = build(tmp_path)
    assert summary.bad and summary.clips == 6 - len(summary.bad) and "no cats" in summary.bad[0].reason
    monkeypatch.undo()
    assert build(tmp_path).built == len(summary.bad) and len(Corpus.open(tmp_path)) == 6


def _refusing(speak):
    def refuse(self, text, voice):
        if "cat" in text:
            raise SpeechError("no cats")
        return speak(self, text, voice)

    return refuse


def test_another_recipe_is_refused(copy):
    with pytest.raises(UserError, match="seed=1"):
        build(copy, seed=1)


def test_another_synthesisers_voice_is_refused_by_the_key_that_names_it(tmp_path):
    with pytest.raises(UserError, match=r"data.voices: tts=tones: no voice 'slt' \(expected one of low"):
        build(tmp_path, voices=["slt"])


def test_a_second_builder_is_refused(copy):
    import fcntl

    with open(copy / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another build"):
            build(copy)


def test_killed_at_any_moment_it_goes_on_whole(built, tmp_path):
    """kill -9 while clips are being written; what the next build leaves must equal an uninterrupted one."""
    script = ("import sys; sys.path.insert(0, sys.argv[2])\n"
              "from test_corpus import build\n"
              "if __name__ == '__main__': build(sys.argv[1], workers=2, prompts=24, verify=0)\n")
    (tmp_path / "run.py").write_text(script)
    root = tmp_path / "corpus"
    process = subprocess.Popen([sys.executable, tmp_path / "run.py", root, Path(__file__).parent],
                               env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 90
    while len(list((root / "clips").glob("*.json"))) < 3 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.005)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(Path(f"/proc/{child}").exists() for child in children), "workers outlive their parent"
    half = len(list((root / "clips").glob("*.json")))
    assert 3 <= half < 24
    summary = build(root, prompts=24)
    assert summary.kept >= half and summary.clips == 24 and not summary.bad
    whole = tmp_path / "whole"
    build(whole, prompts=24)
    assert contents(root) == contents(whole)


def test_verification_lists_every_bad_clip(copy):
    table = Corpus.open(copy).table
    where = [clips.paths(copy, clip) for clip in table["id"]]
    where[0]["spectrogram"].write_bytes(where[0]["spectrogram"].read_bytes()[:-1000])
    where[1]["wave"].unlink()
    soundfile.write(where[2]["wave"], np.zeros(MEL.samples), RATE)
    soundfile.write(where[3]["wave"], np.ones(MEL.samples - 1) / 2, RATE)
    picture = np.load(where[4]["spectrogram"])
    picture[100, 10:20] += 2
    np.save(where[4]["spectrogram"], picture)
    np.save(where[5]["spectrogram"], np.full((256, 1024), np.nan, np.float32))
    bad = {clip.id: clip.reason for clip in verify_corpus(copy, workers=1)}
    expected = ("unreadable", "no such sound file", "silent", "163839 samples", "differs", "float32")
    for clip, words in zip(table["id"], expected, strict=True):
        assert words in bad[clip]
    assert set(pandas.read_csv(copy / "bad.csv")["id"]) == set(table["id"])


@pytest.mark.parametrize("change, words", [
    ({"ends": lambda ends: ends[:-1]}, "missing"), ({"starts": lambda starts: starts[::-1]}, "order"),
    ({"starts": lambda starts: starts * np.nan}, "order"), ({"ends": lambda ends: ends + 20}, "order"),
])
def test_verification_finds_bad_phone_times(copy, change, words):
    row = Corpus.open(copy).table.iloc[0].to_dict()
    for key, function in change.items():
        row[key] = function(np.asarray(row[key]))
    assert words in clips.check_clip(copy, row, MEL.samples, None)


def test_a_row_twice_is_found(copy):
    table = Corpus.open(copy).table
    pandas.concat([table, table.iloc[:1]]).to_parquet(copy / "manifest.parquet")
    assert [clip.id for clip in verify_corpus(copy, workers=1, recompute=0)] == [table["id"][0]]


def test_opening_what_is_no_corpus_is_one_clear_error(copy, tmp_path):
    with pytest.raises(UserError, match="build it with"):
        Corpus.open(tmp_path)
    with pytest.raises(UserError, match="train, valid or test"):
        Corpus.open(copy, "dev")
    table = Corpus.open(copy).table
    table.assign(mel_spec="other").to_parquet(copy / "manifest.parquet")
    with pytest.raises(UserError, match="mel spec other"):
        Corpus.open(copy)
    table.drop(columns="starts").to_parquet(copy / "manifest.parquet")
    with pytest.raises(UserError, match="no column starts"):
        Corpus.open(copy)
    (copy / "manifest.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="not a readable parquet"):
        Corpus.open(copy)


@needs_flite
def test_the_command_builds_a_corpus(tmp_path):
    command = [sys.executable, "-m", "images_that_speak.data", f"data.root={tmp_path / 'made'}",
               "data.prompts=2", "data.workers=1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 clips" in done.stdout and len(Corpus.open(tmp_path / "made")) == 2
    done = subprocess.run([*command, "data.voices=[slb]"], capture_output=True, text=True, env=environment,
                          cwd=tmp_path, check=False)
    assert done.returncode == 2 and "slb" in done.stderr and "Traceback" not in done.stderr
