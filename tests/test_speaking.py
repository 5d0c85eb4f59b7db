"""Pictures that speak in the same cells: bands, loudness, colour, sources, and the command itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_family import tiny_pocket_family

from images_that_speak import config
from images_that_speak.audio.mel import MEL, LogMel, logmel_to_picture
from images_that_speak.audio.picture import luminance, read_picture, to_grid
from images_that_speak.audio.vocoder import load_vocoder
from images_that_speak.audio.wave import as_stored, read_wave
from images_that_speak.errors import UserError
from images_that_speak.generate import generate
from images_that_speak.packages import installed
from images_that_speak.speaking import voices
from images_that_speak.speaking.jobs import plan_jobs
from images_that_speak.speaking.make import Maker
from images_that_speak.speaking.modulation import (
    POWER,
    Modulation,
    blur,
    dotted,
    faded,
    lattice,
    loudness,
    spoken,
)
from images_that_speak.speaking.paint import LUMA, coloured, detailed, painted
from images_that_speak.speaking.photographs import Framing, plain_ground
from images_that_speak.speaking.voices import CALM, spoken_by

RNG = np.random.default_rng(0)


def tone(seconds: float, rate: int = 16_000, channels: int = 1) -> np.ndarray:
    """(T, channels) of a voice-like sound: harmonics of 150 Hz, four syllables a second."""
    t = np.arange(int(seconds * rate)) / rate
    voice = sum(np.sin(2 * np.pi * 150 * k * t) / k for k in range(1, 20))
    wave = voice * np.maximum(0, np.sin(np.pi * 8 * t))
    return np.repeat(0.2 * wave[:, None], channels, 1).astype(np.float32)


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """A landscape of 600 x 400 with shading, an edge and texture."""
    y, x = np.mgrid[0:400, 0:600]
    rgb = np.stack([x / 600, y / 400, (np.hypot(x - 300, y - 200) < 120).astype(float)], -1)
    path = tmp_path / "photo.png"
    Image.fromarray(np.round(255 * (0.8 * rgb + 0.2 * RNG.random(rgb.shape))).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "me.wav", tone(2), 16_000)
    return tmp_path / "me.wav"


def compose(tmp_path: Path, *overrides: str):
    """A configuration of generate.py that reads nothing back, in 256 rows unless told otherwise."""
    rows = [] if any(text.startswith("picture.rows") for text in overrides) else ["picture.rows=256"]
    return config.compose("generate", [f"paths.logs={tmp_path}/logs", "reader=none", *rows, *overrides])


# --- the composition


def test_bands_add_up_and_part_by_modulation() -> None:
    """A wave of 4 Hz along time is in the band of speech, one of 0.2 Hz is shading, one of 30 Hz detail."""
    time = torch.arange(400) / 100
    for hertz, where in ((0.25, 0), (4, 1), (40, 2)):
        picture = (0.5 + 0.3 * torch.cos(2 * torch.pi * hertz * time)).expand(1, 256, 400)
        parts = Modulation().bands(picture)
        torch.testing.assert_close(sum(parts), picture, atol=1e-5, rtol=0)
        strength = [float((part - part.mean()).std()) for part in parts]
        assert np.argmax(strength) == where and strength[where] > 0.8 * float(picture.std())


def test_what_is_fine_along_frequency_is_not_contested() -> None:
    rows = torch.arange(256)[:, None] / 256
    for cycles, where in ((4, 1), (60, 2)):
        changing = torch.cos(2 * torch.pi * 4 * torch.arange(400) / 100)
        picture = 0.5 + 0.3 * torch.cos(2 * torch.pi * cycles * rows) * changing
        strength = [float(part.std()) for part in Modulation().bands(picture[None])]
        assert np.argmax(strength) == where


def test_loudness_of_a_plain_ground_is_its_brightness() -> None:
    plain = torch.full((1, 256, 300), 0.37)
    torch.testing.assert_close(loudness(plain), plain, atol=1e-4, rtol=0)
    uneven = plain + 0.1 * (-1) ** torch.arange(300)
    assert float(loudness(uneven).mean()) > 0.37 + 0.05  # power averages above brightness


def test_texture_is_levelled_to_the_loudness_of_its_ground() -> None:
    """Without rounds a texture sounds louder than the same ground without it; with them it does not."""
    silence = torch.zeros(1, 256, 300)
    texture = 0.5 + torch.from_numpy(RNG.choice([-0.5, 0.5], (1, 256, 300))).float()
    level = {}
    for rounds in (0, 6):
        joined = Modulation(rounds=rounds, shading=0, contested=0, silence=0, detail=0.3)(texture, silence)
        level[rounds] = float((loudness(joined) - 0.45)[..., 20:-20].mean())
    assert level[0] > 0.03 and abs(level[6]) < 0.2 * level[0]


def test_a_voice_on_a_plain_ground_is_its_own_contrast() -> None:
    compose_ = Modulation(voice_db=0, valleys=1, soften_rows=0, soften_columns=0, rounds=0)
    voice = logmel_to_picture(LogMel()(torch.from_numpy(tone(3)).T))
    plain = torch.full_like(voice, 0.5)
    ground = 0.45 - 0.5 * 0.35  # a plain picture is stretched to black
    expected = ground + faded(spoken(voice))[:, None] * compose_.spoken_contrast(voice)
    torch.testing.assert_close(compose_(plain, voice), expected.clamp(0, 1), atol=1e-4, rtol=0)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    pictures, sounds = torch.rand(3, 256, 200), torch.rand(3, 256, 200)
    together = Modulation()(pictures, sounds)
    alone = Modulation()(pictures[1:2], sounds[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=0)


def test_silence_belongs_to_the_picture() -> None:
    voice = torch.zeros(1, 256, 300)
    voice[:, 100:, 120:180] = 0.6
    said = spoken(voice)[0]
    assert said[140:160].min() == 1 and said[:90].max() == 0 and said[210:].max() == 0
    fade = faded(said[None])[0]
    assert fade[120:180].min() > 0.99 and fade[:50].max() < 0.01 and fade[250:].max() < 0.01


@pytest.mark.parametrize(("key", "value"), [("low_hz", -1), ("shading", 1.5), ("rounds", 99), ("low_hz", 20),
                                            ("detail", float("nan")), ("voice_db", 40)])
def test_values_out_of_range_are_named(key: str, value: float) -> None:
    with pytest.raises(UserError, match=f"composition.{key}={value}"):
        Modulation(**{key: value})


def test_dots_are_seen_as_the_picture_and_heard_as_the_voice() -> None:
    """Means over cells are what is seen, mean powers what is heard, wherever that is not darker."""
    for every in (2, 5, 8):
        heard = torch.full((1, 40 * every, 40 * every), 0.6)
        for level in (0.35, 0.5, 0.6, 0.7):
            cells = dotted(heard, torch.full_like(heard, level), every)
            power = float((POWER * (cells - 0.6)).exp().mean().log()) / POWER + 0.6
            assert power == pytest.approx(0.6, abs=2e-3)
            assert float(cells.mean()) == pytest.approx(min(level, 0.6), abs=2e-3)
            assert 0 <= float(cells.min()) and float(cells.max()) <= 1


@pytest.mark.parametrize("every", [2, 3, 5, 8, 10, 32])
def test_a_lattice_holds_one_cell_of_n_and_none_beside_another(every: int) -> None:
    cells = lattice(2 * every, 3 * every, every)
    assert int(cells.sum()) == 6 * every
    assert not (cells[1:] & cells[:-1]).any() and not (cells[:, 1:] & cells[:, :-1]).any()


def test_a_drawing_in_dots_keeps_its_shape_at_a_distance_and_its_voice() -> None:
    """Halved twice the picture is the drawing; its loudness follows the voice, drawing or not."""
    voice = logmel_to_picture(LogMel()(torch.from_numpy(tone(3)).T))
    drawing = torch.zeros_like(voice)
    drawing[:, 60:180, 80:200] = 0.5
    joined = Modulation(dots=8, brightness=0.6, shading=0)(drawing, voice)
    far = torch.nn.functional.avg_pool2d(joined[:, None], 8)[:, 0]
    shape = torch.nn.functional.avg_pool2d(drawing[:, None], 8)[:, 0]
    assert float(torch.corrcoef(torch.stack([far.flatten(), shape.flatten()]))[0, 1]) > 0.95
    plain = Modulation(dots=8, brightness=0.6, shading=0)(torch.zeros_like(voice), voice)
    assert float((loudness(joined) - loudness(plain)).abs().mean()) < 0.02  # 3 dB


def test_drawings_have_settings_of_their_own() -> None:
    both = Modulation(dots=0, brightness=0.4, drawings={"dots": 5, "brightness": 0.6})
    assert (both.for_drawings.dots, both.for_drawings.brightness) == (5, 0.6)
    assert both.for_drawings.for_drawings == both.for_drawings and both.dots == 0
    assert Modulation().for_drawings == Modulation()


@pytest.mark.parametrize(("drawings", "message"), [
    ({"dot": 8}, "style.drawings.dot: no such setting.*dots"),
    ({"dots": 1}, "style.drawings.dots=1: expected 0, or 2 to 32"),
    ({"dots": "many"}, "style.drawings.dots=many: expected a number"),
    ({"shadow": 0.7}, "style.drawings.shadow=0.7: expected less than light=0.6"),
    ({"light": float("nan")}, "style.drawings.light=nan: expected 0 to 1"),
    ({"draws": 2}, "style.drawings.draws: no such setting")])
def test_settings_of_drawings_out_of_range_are_named(drawings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Modulation(drawings=drawings)


def test_blur_keeps_sums_and_leaves_an_axis_alone() -> None:
    spot = torch.zeros(1, 65, 65)
    spot[0, 32, 32] = 1
    blurred = blur(spot, 0, 3)
    assert blurred.sum() == pytest.approx(1, abs=1e-5)
    assert (blurred[0, 32] > 0).sum() > 10 and (blurred[0, :, 32] > 0).sum() == 1


# --- the picture


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 3))
def test_colour_never_moves_the_luminance_by_more_than_a_level(seed: int, strength: float) -> None:
    """Whatever the colours, and however far they would leave the cube."""
    rng = np.random.default_rng(seed)
    y = rng.random((40, 40)).astype(np.float32)
    chroma = (strength * rng.normal(size=(40, 40, 3))).astype(np.float32)
    chroma -= (chroma @ LUMA)[..., None]
    assert np.abs(luminance(coloured(y, chroma)) - 255 * y).max() <= 1.01


@pytest.mark.parametrize("times", [1, 2, 3, 4])
def test_the_message_survives_colour_and_detail(times: int) -> None:
    message = np.clip(RNG.random((256, 60)) * 1.2 - 0.1, 0, 1).astype(np.float32)
    rgb = RNG.random((256 * times, 60 * times, 3)).astype(np.float32)
    pixels = painted(message, rgb, detail=2.0, saturation=2.0)
    assert pixels.shape == (256 * times, 60 * times, 3) and pixels.dtype == np.uint8
    assert np.abs(to_grid(luminance(pixels)) - 255 * message).max() <= 1


def test_detail_within_cells_is_the_photographs() -> None:
    fine = RNG.random((512, 200)).astype(np.float32)
    found = detailed(np.full((256, 100), 0.5, np.float32), 0.4 + 0.2 * fine, 2)
    inside = fine - fine.reshape(256, 2, 100, 2).mean((1, 3)).repeat(2, 0).repeat(2, 1)
    ours = found - 0.5
    assert np.corrcoef(ours.ravel(), inside.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch", "auto"])
@pytest.mark.parametrize("shape", [(400, 600), (900, 300), (100, 2000)])
def test_every_shape_is_framed(fit: str, shape: tuple[int, int]) -> None:
    pixels = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert Framing(rows=512, fit=fit).framed(pixels, 321).shape == (512, 642, 3)


def test_crop_keeps_the_focus_and_pad_shows_all() -> None:
    pixels = np.zeros((300, 300, 3), np.uint8)
    pixels[10:40, 140:160] = 255  # above the middle
    cropped = Framing(rows=256, fit="crop", focus=(0.5, 0.1)).framed(pixels, 512)
    assert cropped.max() > 0.9
    assert Framing(rows=256, fit="crop", focus=(0.5, 0.9)).framed(pixels, 512).max() < 0.1
    assert Framing(rows=256, fit="pad").framed(pixels, 512).max() > 0.9


def test_cut_outs_are_shown_whole(tmp_path: Path) -> None:
    """On a plain ground nothing is cut and the ground goes on to the edges."""
    pixels = np.full((200, 200, 3), 90, np.uint8)
    pixels[20:180, 5:195] = 200
    framed = Framing(rows=256).framed(pixels, 400)
    assert np.allclose(framed[:, :60], 90 / 255) and framed.max() > 0.7
    assert (framed[128, :, 0] > 0.7).sum() > 200


def test_a_cut_out_may_touch_the_edge_of_its_file() -> None:
    pixels = np.full((100, 100, 3), 128, np.uint8)
    pixels[40:, 30:60] = 250
    assert plain_ground(pixels) == (128, 128, 128)
    pixels[:, 25:75] = np.arange(50, dtype=np.uint8)[:, None]
    pixels[25:75] = np.arange(100, dtype=np.uint8)[:, None]
    assert plain_ground(pixels) is None  # half of the border is otherwise


def test_transparent_photographs_show_the_ground(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (Framing(ground="#204060").read(tmp_path / "clear.png") == (0x20, 0x40, 0x60)).all()


@pytest.mark.parametrize(("key", "value"), [("rows", 300), ("fit", "corp"), ("focus", (2, 0)),
                                            ("ground", "grean")])
def test_framings_that_make_no_sense(key: str, value: object) -> None:
    with pytest.raises(UserError, match=f"picture.{key}="):
        Framing(**{key: value})


# --- speech


@pytest.mark.parametrize(("rate", "channels", "ending"), [(44_100, 2, "flac"), (8_000, 1, "wav"),
                                                          (48_000, 6, "wav"), (22_050, 1, "ogg")])
def test_recordings_of_any_rate_and_channels(rate: int, channels: int, ending: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / f"a.{ending}", tone(1.5, rate, channels), rate)
    wave = voices.read_recording(tmp_path / f"a.{ending}")
    assert abs(len(wave) - 24_000) < 400
    expected = tone(1.5)[:, 0]
    assert np.corrcoef(wave[:23_000], expected[:23_000])[0, 1] > 0.9


@pytest.mark.parametrize("kind", ["silence", "hour", "nan", "empty", "text"])
def test_recordings_that_cannot_be_said(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"{kind}.wav"
    if kind == "text":
        path.write_text("no sound")
    elif kind == "hour":
        soundfile.write(path, np.zeros(3600 * 4000, np.int16), 4000)
    else:
        wave = {"silence": np.zeros(16_000), "nan": np.full(16_000, np.nan), "empty": np.zeros(0)}[kind]
        soundfile.write(path, wave, 16_000, subtype="FLOAT")
    with pytest.raises(UserError, match=f"speech=.*{kind}.wav"):
        voices.read_recording(path)


def test_faster_speech_is_shorter_at_the_same_pitch() -> None:
    wave = np.sin(2 * np.pi * 200 * np.arange(32_000) / 16_000).astype(np.float32)
    fast = voices.stretched_in_time(wave, 2.0)
    assert abs(len(fast) - 16_000) < 600
    spectrum = np.abs(np.fft.rfft(fast[2000:14_000]))
    assert np.argmax(spectrum) * 16_000 / 12_000 == pytest.approx(200, abs=2)


def test_silence_at_the_ends_is_no_part_of_the_picture() -> None:
    wave = np.concatenate([np.zeros(32_000), tone(1)[:, 0], np.zeros(48_000)])
    assert voices.speech_of_wave(wave).frames < 130


@pytest.mark.skipif(not installed("hibari"), reason="the extra voices is not installed")
def test_hibari_speaks_calmly_where_there_is_room() -> None:
    """A sentence takes a quarter longer than at its own pace; one that would not fit is said at that pace."""
    short = "We are going home."
    assert len(spoken_by("hibari", short)) > 1.15 * len(spoken_by("hibari", short, 1 / CALM))
    long = " ".join(["the pilot told us to look out of the window"] * 3)
    assert len(spoken_by("hibari", long, 0.9)) == len(spoken_by("hibari", long, 0.9 / CALM))


def test_an_unknown_voice_is_named() -> None:
    with pytest.raises(UserError, match="voice=hibary.*hibari"):
        voices.spoken_by("hibary", "hello")


# --- jobs and the command


def test_folders_times_sentences(photograph: Path, tmp_path: Path) -> None:
    (tmp_path / "said.txt").write_text("# two\nHello there.\n\nGood night.\n")
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.jpg", "notes.txt"):
        (folder / name).write_bytes(photograph.read_bytes())
    jobs = plan_jobs(compose(tmp_path, f"image={folder}", f"sentences={tmp_path}/said.txt", "num_samples=2"))
    assert len(jobs) == 8  # two pictures, two sentences, two seeds; the pictures are alike
    assert {job.speech.prompt for job in jobs} == {"Hello there.", "Good night."}


def test_a_csv_of_files(photograph: Path, recording: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("image,image_prompt,speech,audio_prompt\nphoto.png,a disc,me.wav,\n"
                                        "photo.png,,,good night\n")
    first, second = plan_jobs(compose(tmp_path, f"prompts={tmp_path}/pairs.csv"))
    assert (first.picture.file, first.picture.prompt) == (photograph, "a disc")
    assert first.speech.file == recording and second.speech.prompt == "good night"
    (tmp_path / "pairs.csv").write_text("image,audio_prompt\nphoto.png,hello\nnone.png,hello\n")
    with pytest.raises(UserError, match="line 3.*none.png"):
        plan_jobs(compose(tmp_path, f"prompts={tmp_path}/pairs.csv"))


def test_a_photograph_speaks_a_recording(photograph: Path, recording: Path, tmp_path: Path) -> None:
    """The contract: image.png and speech.wav, and what is played is what is seen."""
    cfg = compose(tmp_path, f"image={photograph}", f"speech={recording}", "picture.rows=512")
    generate(cfg)
    folder = next((tmp_path / "logs/generate").glob("*/samples/*"))
    pixels = np.asarray(Image.open(folder / "image.png"))
    assert pixels.shape == (512, 768, 3) and (folder / "photograph.jpg").exists()
    message = read_picture(folder / "image.png")
    again = load_vocoder("griffin_lim").decode_message(message[None])[0].numpy()
    np.testing.assert_allclose(read_wave(folder / "speech.wav"), as_stored(again), atol=1 / 32_000)
    # The rhythm of the recording is in the sound: its envelope at four syllables a second.
    loud = np.log((read_wave(folder / "speech.wav")[:-160] ** 2).reshape(-1, 160).mean(1) + 1e-9)[90:290]
    rhythm = np.abs(np.fft.rfft((loud - loud.mean()) * np.hanning(len(loud))))
    assert np.argmax(rhythm[5:20]) + 5 in (7, 8, 9)
    record = json.loads((folder / "sample.json").read_text())
    assert record["source"]["path"] == str(photograph) and record["voice"] == "recording"
    assert config and generate(cfg)["made"] == 1  # finished: nothing is made again


def test_what_does_not_fit_is_told_with_the_ways_out(photograph: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", tone(14), 16_000)
    maker = Maker.plan(cfg := compose(tmp_path, f"image={photograph}", f"speech={tmp_path}/long.wav"),
                       config.instantiate(cfg.family))
    with pytest.raises(UserError, match=r"takes 14\.\d s to say.*rate=1\.\d"):
        maker.prepare()


def test_the_sentence_makes_the_picture_wider(recording: Path, tmp_path: Path, capsys) -> None:
    Image.fromarray(RNG.integers(0, 256, (300, 100, 3), dtype=np.uint8)).save(tmp_path / "portrait.png")
    maker = Maker.plan(cfg := compose(tmp_path, f"image={tmp_path}/portrait.png", f"speech={recording}"),
                       config.instantiate(cfg.family))
    maker.prepare()
    assert "portrait.png: a crop" in capsys.readouterr().out
    (mixed, unmixed), = maker.make(maker.jobs)
    assert mixed.shape == unmixed.shape and mixed.shape[1] == maker.speeches[maker.jobs[0].speech].frames


@pytest.mark.parametrize("content", ["black", "white", "tiny", "cut"])
def test_odd_photographs(content: str, recording: Path, tmp_path: Path) -> None:
    """Plain ones speak; those that cannot be read are named before anything is made."""
    path = tmp_path / f"{content}.jpg"
    size = (3, 3) if content == "tiny" else (300, 200)
    Image.new("RGB", size, "white" if content == "white" else "black").save(path)
    if content == "cut":
        Image.fromarray(RNG.integers(0, 256, (200, 300, 3), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:5000])
    cfg = compose(tmp_path, f"image={path}", f"speech={recording}")
    if content in ("tiny", "cut"):
        with pytest.raises(UserError, match=f"{content}.jpg"):
            generate(cfg)
        assert not (tmp_path / "logs").exists()
    else:
        assert generate(cfg)["made"] == 1


def test_drawings_share_their_cells_with_the_voice(recording: Path, tmp_path: Path) -> None:
    """By a tiny family: pasted at the end, and told the voice in every second step."""
    family = tiny_pocket_family(tmp_path / "family")
    pictures = []
    for joint in (0.0, 0.5):
        cfg = compose(tmp_path, f"family.weights={family}", "image_prompt=a cat", f"speech={recording}",
                      "steps=4", "picture.colour=false", f"composition.joint={joint}")
        maker = Maker.plan(cfg, config.instantiate(cfg.family))
        maker.prepare()
        (mixed, unmixed), = maker.make(maker.jobs)
        assert mixed.shape[0] == 256 and mixed.shape[1] >= 256
        pictures.append(unmixed)
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() > 0


def test_a_setting_that_drawings_have_otherwise_is_told(photograph: Path, recording: Path, tmp_path: Path
                                                        ) -> None:
    def notes(*overrides: str) -> list[str]:
        cfg = compose(tmp_path, f"speech={recording}", *overrides)
        return Maker.plan(cfg, config.instantiate(cfg.family)).notes()

    assert notes("composition.dots=4") == [
        "note: composition.dots=4 is for photographs; drawings have style.drawings.dots=8"]
    assert notes("style.drawings.dots=4") == notes("composition.valleys=0.4") == notes() == []
    assert notes("composition.dots=4", f"image={photograph}") == []


def test_files_need_the_composition_that_takes_them(photograph: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="image=.*composition=modulation"):
        generate(compose(tmp_path, f"image={photograph}", "composition=masks"))


def test_the_grid_is_where_frames_are() -> None:
    """A picture as wide as F columns plays F frames, in every number of rows."""
    for rows in (256, 512, 768, 1024):
        pixels = np.zeros((rows, rows * 300 // 256, 3), np.uint8)
        assert to_grid(luminance(pixels)).shape == (MEL.n_mels, 300)
