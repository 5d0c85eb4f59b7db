"""The types of every configuration. Defaults and meanings stand in configs/, where `--help` reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MISSING: Any = "???"  # as OmegaConf spells it, which takes long to import


@dataclass
class Paths:
    logs: str = MISSING
    data: str = MISSING
    weights: str = MISSING


@dataclass
class Precision:
    trainer: str = MISSING
    matmul: str = MISSING
    dtype: str = MISSING
    autocast: str | None = None


@dataclass
class Guidance:
    image_scale: float = MISSING
    audio_scale: float = MISSING
    audio_weight: float = MISSING
    image_start: float = MISSING
    audio_start: float = MISSING
    interval: list[float] = MISSING
    rescale: float = MISSING


@dataclass
class Phonemes:
    start: Any = MISSING
    pause: float = MISSING
    rate: float = MISSING


@dataclass
class Reports:
    video: bool = MISSING


@dataclass
class Common:
    """What every task has. Sections typed Any are free: each choice of a group brings its own keys."""

    seed: int = MISSING
    fresh: bool = False
    check: bool = False
    optimized_metrics: list[str] = field(default_factory=list)
    paths: Paths = field(default_factory=Paths)
    logger: Any = None


@dataclass
class Picture:
    rows: int = MISSING
    fit: str = MISSING
    focus: list[float] = MISSING
    ground: str = MISSING
    colour: bool = MISSING
    saturation: float = MISSING


@dataclass
class Making:
    """What making a sample takes: by generate.py, and by the page of the demo."""

    image_prompt: str = MISSING
    audio_prompt: str = MISSING
    strict: bool | None = False
    seed: int = MISSING
    steps: int = MISSING
    voice: str | None = None
    pitch: float = MISSING
    device: str = MISSING
    guidance: Guidance = field(default_factory=Guidance)
    precision: Precision = field(default_factory=Precision)
    phonemes: Phonemes = field(default_factory=Phonemes)
    paths: Paths = field(default_factory=Paths)
    family: Any = None
    method: Any = None
    scheduler: Any = None
    composition: Any = None
    scene: Any = None
    vocoder: Any = None
    reader: Any = None
    image: str | None = None
    speech: str | None = None
    rate: float = MISSING
    picture: Picture = field(default_factory=Picture)
    style: Any = None
    colorizer: Any = None


@dataclass
class Generate(Making, Common):
    strength: float | None = None
    prompts: str | None = None
    sentences: str | None = None
    num_samples: int = MISSING
    batch_size: int = MISSING
    reference: str | None = None
    metrics: Any = None
    profile: bool = False
    debug: str | None = None
    report: Reports = field(default_factory=Reports)


@dataclass
class Evaluate(Common):
    run: str | None = None
    pictures: str | None = None
    prompts: str | None = None
    words: str = MISSING
    reference: str | None = None
    bootstrap: int = MISSING
    device: str = MISSING
    family: Any = None
    vocoder: Any = None
    reader: Any = None
    metrics: Any = None


@dataclass
class Train(Common):
    resume: str | None = None
    steps: int = MISSING
    device: str = MISSING
    export: str | None = None
    profile: bool = False
    debug: str | None = None
    precision: Precision = field(default_factory=Precision)
    data: Any = None
    model: Any = None
    adapter: Any = None
    trainer: Any = None
    callbacks: Any = None


@dataclass
class Corpus:
    data: Any = None
    tts: Any = None
    paths: Paths = field(default_factory=Paths)


@dataclass
class Limits:
    words: int = MISSING
    characters: int = MISSING
    steps: int = MISSING
    waiting: int = MISSING


@dataclass
class Demo(Making):
    host: str = MISSING
    port: int = MISSING
    browser: bool = MISSING
    limits: Limits = field(default_factory=Limits)


@dataclass
class Colour:
    run: str | None = None
    saturation: float = MISSING
    device: str = MISSING
    paths: Paths = field(default_factory=Paths)
    colorizer: Any = None

