"""The figures that samples, sets of them and runs have: what each is called, and which way is better.

One definition for the tables, the pages, a run's card, searches and comparisons. A metric or a training of
one's own declares others, which its run folders carry (`as_json`). Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

LOW, HIGH = "minimize", "maximize"
T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """A number that comes out.

    Attributes:
        key: in result.json, and in the scores of a sample.
        title: as pages call it.
        better: "minimize" or "maximize".
        share: whether it is one, to be told in per cent.
        of: "sample", whose figure of a set is a mean or a rate; "set", of which one sample has none; "run".
        per: what a sample's figure is weighed by when many are one: words, characters and so on, the first
            that the sample has; none: the plain mean.
        counts: whether a sample's figure is a number of `per`, and not yet a rate.
        headline: whether tables of many runs tell it.
        column: its heading in the table of totals; none: it is not told there.
    """

    key: str
    title: str
    better: str = LOW
    share: bool = False
    of: str = "sample"
    per: tuple[str, ...] = ()
    counts: bool = False
    headline: bool = True
    column: str | None = None

    @property
    def falling(self) -> bool:
        """Whether the best come first where the largest do."""
        return self.better == HIGH

    def weight(self, scores: Mapping[str, Any]) -> float:
        """How much a sample counts; 0 where it has no such figure."""
        if scores.get(self.key) is None:
            return 0.0
        return float(next((scores[key] for key in self.per if scores.get(key)), 0 if self.per else 1))

    def weighed(self, scores: Mapping[str, Any]) -> float:
        """What a sample adds: figures of many are Σ weighed / Σ weight."""
        value = float(scores[self.key])
        return value if self.counts else value * self.weight(scores)


def _words(key: str, title: str, column: str | None, second: bool = False) -> Figure:
    per = ("second_words", "words") if second else ("words",)
    return Figure(key, title, share=True, per=per, counts=True, headline=False, column=column)


def _seen(key: str, title: str, column: str, headline: bool = False) -> Figure:
    return Figure(key, title, HIGH, share=True, headline=headline, column=column)


# Of what is read back, in the order of the table of totals: of the sound, and of the picture.
HEARD = (
    Figure("wer", "WER", share=True, per=("words",), column="WER"),
    Figure("second_wer", "WER, second judge", share=True, per=("second_words", "words"), headline=False,
           column="second WER"),
    _words("invented", "invented", "invented"),
    _words("second_invented", "invented, second judge", "invented (second)", second=True),
    _words("insertions", "insertions", None),
    _words("deletions", "deletions", "deletions"),
    _words("substitutions", "substitutions", "substitutions"),
    Figure("cer", "CER", share=True, per=("characters",), headline=False, column="CER"),
    Figure("per", "PER", share=True, per=("phones",), column="PER"),
    Figure("wer_capped", "WER ≤ 1", share=True, headline=False, column="WER ≤ 1"),
)
SEEN = (
    Figure("clip", "CLIP", HIGH, column="CLIP"),
    _seen("top1", "top-1", "top-1", headline=True),
    _seen("second_top1", "top-1, second reader", "top-1 (second)"),
    _seen("noun_mass", "noun", "noun"),
    _seen("second_noun_mass", "noun, second reader", "noun (second)"),
    _seen("top1_agreement", "first class kept", "first class kept"),
    _seen("second_top1_agreement", "first class kept, second reader", "first class kept (second)"),
    _seen("top5_agreement", "in top 5", "in top 5"),
    _seen("second_top5_agreement", "in top 5, second reader", "in top 5 (second)"),
    _seen("joint", "joint success", "joint success", headline=True),
)
READ_BACK = (*HEARD, *SEEN, Figure("evaluations", "network passes", headline=False, column="NFE"))
# Of the metrics beside, of each sample.
MEASURED = (
    Figure("ssim", "SSIM", HIGH), Figure("hss", "HSS", HIGH), Figure("stoi", "STOI", HIGH),
    Figure("pesq", "PESQ", HIGH), Figure("mcd_dtw", "MCD"), Figure("clap", "CLAP", HIGH),
    Figure("dnsmos_p808", "DNSMOS P.808", HIGH), Figure("dnsmos_sig", "DNSMOS SIG", HIGH),
    Figure("dnsmos_bak", "DNSMOS BAK", HIGH), Figure("dnsmos_ovr", "DNSMOS OVR", HIGH),
)
# Of the metrics beside, of sets of samples alone; those of other features than Inception's end in their name.
OF_SETS = tuple(Figure(key, title, of="set") for key, title in {
    "fid": "FID", "kid": "KID", "fid_pocket": "FID (pocket)", "kid_pocket": "KID (pocket)",
    "fid_clip": "FID (CLIP)", "kid_clip": "KID (CLIP)", "fad_mel": "FAD (mel)", "kad_mel": "KAD (mel)",
    "fad_clap": "FAD (CLAP)", "kad_clap": "KAD (CLAP)"}.items())


def _trained(better: str, *keys: str) -> tuple[Figure, ...]:
    return tuple(Figure(key, key, better, of="run", headline=key.endswith("/loss")) for key in keys)


# Of what a training logs, or returns.
TRAINED = (
    *_trained(LOW, "valid/loss", "train/loss", "train/l1", "train/edge", "train/kl", "valid/l1", "valid/edge",
              "valid/kl", "train/mel", "train/stft", "valid/mel_error", "valid/mcd",
              "valid/stft_convergence", "valid/stft_log", "valid/wer", "train/ctc", "train/alignment",
              "train/frame_error", "valid/ctc", "valid/alignment", "valid/frame_error", "valid/phone_error",
              "train/error", "valid/error", "valid/mae_ms", "valid/utterance_error", "phone_error",
              "word_error", "train/squares",
              "train/pixels", "train/similarity", "train/perceptual", "train/frames", "train/adversarial",
              "train/discriminator", "valid/mse"),
    *_trained(HIGH, "valid/pesq", "valid/stoi", "valid/right", "valid/variance_explained", "variance_kept",
              "train/right", "valid/window_top1", "valid/clip", "valid/ssim", "valid/hss"),
)
OF_RUNS = (Figure("steps", "steps", of="run"), Figure("seconds", "seconds", of="run"))
FIGURES = {figure.key: figure for figure in (*READ_BACK, *MEASURED, *OF_SETS, *TRAINED, *OF_RUNS)}

_declared: dict[Any, tuple[Figure, ...]] = {}


def of(*keys: str) -> tuple[Figure, ...]:
    """Those of FIGURES with these keys."""
    return tuple(FIGURES[key] for key in keys)


def declares(*given: str | Figure) -> Callable[[T], T]:
    """Decorate a class or function that a configuration names with the figures that come out of it."""
    found = tuple(FIGURES[figure] if isinstance(figure, str) else figure for figure in given)

    def mark(part: T) -> T:
        _declared[part] = found
        return part

    return mark


def declared_by(part: Any) -> tuple[Figure, ...]:
    """What a class, or one that it is derived from, or a function declares; none where nothing is."""
    line = part.__mro__ if isinstance(part, type) else (part,)
    return next((_declared[one] for one in line if one in _declared), ())


def as_json(found: Iterable[Figure]) -> dict[str, dict[str, Any]]:
    """{"figures": …} of those that FIGURES does not hold, for a result.json; nothing where there are none."""
    own = [asdict(figure) for figure in found if FIGURES.get(figure.key) != figure]
    return {"figures": {figure.pop("key"): figure for figure in own}} if own else {}


def known(result: Mapping[str, Any] | None) -> dict[str, Figure]:
    """FIGURES, and those that a result.json declares besides."""
    own = (result or {}).get("figures") or {}
    return {**FIGURES, **{key: Figure(key, **{**said, "per": tuple(said.get("per", ()))})
                          for key, said in own.items()}}
