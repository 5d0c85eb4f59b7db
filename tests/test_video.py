"""Videos, decoded again: frames, the bar's place, the sound, words; and that none is made twice."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image
from report_runs import picture_and_sound, write_run

from images_that_speak.reports import video as module
from images_that_speak.reports.caption import draw_caption, lines, pieces
from images_that_speak.reports.commands import main
from images_that_speak.reports.folders import Sample, find_runs
from images_that_speak.reports.video import FPS, frames, video_path, write_video

SAMPLE = {"image": "a cat", "audio": "happy baby music", "heard": "so happy maybe", "clip": 21.5,
          "top1": True}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one sample of 2 s with its video."""
    folder = write_run(tmp_path_factory.mktemp("runs") / "run", [SAMPLE])
    noise = np.random.default_rng(0).standard_normal(32000) * np.hanning(400).repeat(80)
    soundfile.write(folder / "samples/000000000000/speech.wav", 0.3 * noise, 16000, subtype="PCM_16")
    assert main(["video", str(folder)]) == 0
    return folder


def decoded(path: Path) -> tuple[np.ndarray, list[float], np.ndarray]:
    """(N, H, W, 3) frames, their times in seconds, and the sound."""
    with av.open(str(path)) as container:
        shown = list(container.decode(video=0))
    with av.open(str(path)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    return (np.stack([frame.to_ndarray(format="rgb24") for frame in shown]),
            [float(frame.time) for frame in shown], sound)


def test_what_browsers_play(run: Path) -> None:
    with av.open(str(run / "samples/000000000000/video.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt, video.average_rate) == (
            "h264", "yuv420p", FPS)
        assert (audio.codec_context.name, audio.rate, audio.layout.name) == ("aac", 16000, "mono")
        assert container.duration / 1e6 == pytest.approx(2.0, abs=0.07)
    # The index comes before the pictures, so that a browser can begin before it has the whole file.
    data = (run / "samples/000000000000/video.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_the_bar_is_where_the_sound_is(run: Path) -> None:
    shown, times, _ = decoded(run / "samples/000000000000/video.mp4")
    assert len(shown) == 2 * FPS
    assert times == pytest.approx(np.arange(2 * FPS) / FPS)
    picture = np.asarray(Image.open(run / "samples/000000000000/image.png"), int)
    for pixels, time in zip(shown.astype(int), times, strict=True):
        # Colour has half the resolution: a bar's outermost columns are only half as red.
        columns = np.nonzero((pixels[:256, :, 0] - pixels[:256, :, 2]).min(0) > 120)[0]
        assert np.ptp(columns) == len(columns) - 1
        # 2 s over 1024 columns: a frame sweeps 20.5 of them.
        assert columns[0] == pytest.approx(512 * time, abs=2)
        assert columns[-1] + 1 == pytest.approx(512 * (time + 1 / FPS), abs=2)
        beside = np.delete(np.arange(1024), np.arange(max(columns[0] - 8, 0), min(columns[-1] + 9, 1024)))
        assert np.abs(pixels[:256].mean(-1) - picture)[:, beside].mean() < 2


def test_the_sound_is_in_time(run: Path) -> None:
    _, _, sound = decoded(run / "samples/000000000000/video.mp4")
    wave, _ = soundfile.read(run / "samples/000000000000/speech.wav", dtype="float32")
    size = len(wave) + len(sound)
    both = np.fft.irfft(np.fft.rfft(sound, size) * np.conj(np.fft.rfft(wave, size)), size)
    lag = int(both.argmax())
    assert min(lag, size - lag) <= 16  # 1 ms
    assert np.corrcoef(sound[:len(wave)], wave)[0, 1] > 0.95


@pytest.mark.parametrize(("size", "rate", "channels"), [
    ((301, 99), 16_000, 2), ((65, 33), 17_000, 1), ((64, 32), 192_000, 1), ((1, 1), 8_000, 1)])
def test_pictures_and_sounds_of_anyone(tmp_path: Path, size: tuple[int, int], rate: int,
                                       channels: int) -> None:
    """Sides that H.264 does not take, rates that AAC does not know, and a sound on the second channel."""
    Image.new("L", size, 200).save(tmp_path / "x.png")
    wave = np.zeros((rate, channels))
    wave[rate // 2:, -1] = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate - rate // 2) / rate)
    soundfile.write(tmp_path / "x.wav", wave, rate)
    write_video(tmp_path / "x.mp4", Sample("x", tmp_path / "x.png", None, tmp_path / "x.wav"))
    shown, _, sound = decoded(tmp_path / "x.mp4")
    assert shown.shape[0] == FPS and shown.shape[1] % 2 == shown.shape[2] % 2 == 0
    assert np.abs(shown[0, 0, size[0] - 1].astype(int) - 200).max() < 12 or size == (1, 1)
    heard = rate if rate < 17_000 else 48_000
    begins = np.flatnonzero(np.abs(sound) > 0.1)[0] / heard
    assert begins == pytest.approx(0.5, abs=0.02) and len(sound) / heard == pytest.approx(1, abs=0.15)


def test_frames_sweep_every_column_once() -> None:
    scene = np.zeros((6, 1000, 3), np.uint8)
    swept = sum((pixels[0, :, 0] > 0).astype(int) for pixels in frames(scene, (1000, 4), 37))
    assert (swept >= 1).all() and swept.sum() <= 1000 + 37
    assert all((pixels[4:] == 0).all() for pixels in frames(scene, (1000, 4), 37))
    # Fewer columns than frames: each frame still has a bar.
    assert all((pixels[0, :, 0] > 0).any() for pixels in frames(scene[:, :5], (5, 4), 20))


def test_captions() -> None:
    marked = pieces("happy baby music", "so happy maybe")
    assert [piece.text for piece in marked] == ["+so", "happy", "maybe", "[music]"]
    assert [piece.marked for piece in marked] == [False, False, True, False]
    assert len({piece.colour for piece in marked}) == 4
    sample = Sample("x", Path("image.png"), None, None, "a cat", "happy baby music", 0,
                    {"heard": "", "wer": 1.0, "clip": 21.53})
    assert [(label, " ".join(p.text for p in words), figure) for label, words, figure in lines(sample)] == [
        ("shows", "a cat", "CLIP 21.5"), ("says", "happy baby music", ""),
        ("heard", "[happy] [baby] [music]", "WER 100 %")]
    strips = [np.asarray(draw_caption(Sample("x", Path("x.png"), audio_prompt=text), 1024), int)
              for text in ("one", "word " * 15, "word " * 200)]
    # However many words, they stay within the margins.
    for strip in strips:
        assert (strip[:, -24:] == strip[0, 0]).all() and np.abs(strip - strip[0, 0]).max() > 100
    assert (np.abs(strips[2] - strips[2][0, 0]).max((0, 2)) > 0).sum() > 300


def test_none_is_made_twice_but_what_changes_is_made_anew(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", [SAMPLE, {**SAMPLE, "image": "two dogs"}])
    made = []

    def write(path: Path, sample: Sample, comment: str) -> None:
        made.append(sample.id)
        short = Image.open(sample.image).crop((0, 0, 64, 32))
        short.save(path.with_name("small.png"))
        soundfile.write(path.with_name("small.wav"), np.zeros(3200), 16000)
        small = Sample("x", path.with_name("small.png"), None, path.with_name("small.wav"))
        write_video(path, small, comment)

    monkeypatch.setattr(module, "write_video", write)
    assert main(["video", str(folder)]) == 0 and main(["video", str(tmp_path)]) == 0
    assert made == [f"{0:012x}", f"{1:012x}"]
    assert "2 videos made, 0 there already" in capsys.readouterr().out
    record = json.loads((folder / f"samples/{1:012x}/sample.json").read_text())
    record["scores"]["heard"] = "happy baby music"
    (folder / f"samples/{1:012x}/sample.json").write_text(json.dumps(record))
    (folder / f"samples/{0:012x}/video.mp4").write_bytes(b"cut off")
    assert main(["video", str(folder)]) == 0 and made[2:] == [f"{0:012x}", f"{1:012x}"]
    picture_and_sound(folder / f"samples/{0:012x}", 4)
    assert main(["video", str(folder)]) == 0 and made[4:] == [f"{0:012x}"]
    assert not [*folder.rglob(".*.tmp*")]


def test_what_was_coloured_is_shown_in_colour(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [SAMPLE]) / f"samples/{0:012x}"
    soundfile.write(folder / "speech.wav", np.zeros(3200), 16000)
    Image.new("RGB", (1024, 256), (200, 40, 40)).save(folder / "colour.png")
    assert main(["video", str(tmp_path)]) == 0
    pictures, _, _ = decoded(folder / "video.mp4")
    assert np.abs(pictures[0, 100:150, 500:900].astype(int) - (200, 40, 40)).max() < 12


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", [SAMPLE])
    (folder / f"samples/{0:012x}/speech.wav").unlink()
    assert main(["video", str(folder)]) == 2
    told = capsys.readouterr()
    assert "no sound beside it" in told.out and "no sample with a picture and a sound" in told.err
    (folder / f"samples/{0:012x}/speech.wav").write_bytes(b"no sound")
    assert main(["video", str(folder)]) == 2
    assert "speech.wav: not a readable sound file" in capsys.readouterr().err
    soundfile.write(folder / f"samples/{0:012x}/speech.wav", np.zeros(0), 16000)
    assert main(["video", str(folder)]) == 2
    assert "speech.wav: holds no samples" in capsys.readouterr().err
    assert not [*folder.rglob("*.mp4")]
    sample = find_runs([folder])[0].samples[0]
    assert video_path(sample).name == "video.mp4"
    assert video_path(Sample("x", Path("out/x_img.png"))) == Path("out/x_video.mp4")
