"""Where a family's parts lie, and the numbers that bind them. Nothing here loads a weight.

`pocket_layout` and `stable_diffusion_layout` check that the parts are there, `find_weights` fetches what the
hub has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..audio.mel import MEL
from ..errors import UserError, gathered, nearest
from ..files import read_json, write_json
from ..networks.auffusion import CONDITIONS, condition_parts
from ..networks.codec import downsampling
from ..networks.condition import Conditioner
from ..resources import lora_file, weights_dir
from .loading import LORA_FILE, adapter_class, reading
from .predictor import PREDICTION_TYPES
from .running import Running

SPACINGS = ("trailing", "leading", "linspace")


@dataclass(frozen=True)
class Layout:
    """Where a family's parts lie, and the numbers that bind them.

    unet, text_encoder, tokenizer: folders by branch, "image" and "speech"; a speech branch that reads
        phonemes has no text encoder but an `adapter`.
    lora: folder of `pytorch_lora_weights.safetensors` for the speech UNet, and beside it, where training
        changed whole parameters too, `unfrozen.safetensors`.
    vocoder: folder, or "griffin_lim".
    scene: folder of the image branch's scene adapter, where it takes scenes.
    conditions: folder of condition_config.json, where the speech branch reads texts through several encoders
        with adapters (Auffusion's full models) in place of one text encoder.
    adapter_in_memory: the class of an adapter that stands in for it, as in training.
    phoneme_bert: folder of the PL-BERT whose embeddings the adapter reads, where it reads any.
    prediction_type: by branch, what its UNet predicts.
    latent_shape: (C, H, W). mean, std: per channel or one for all, latent = (z − mean)/std.
    template: what the image prompt is put into at "{}", the form of caption the image branch was taught.
    schedule: the noise schedule, as diffusers' schedulers are configured.
    running: how the networks are run.
    drawings: whether the painter has learnt the sentences of data/captions.py and nothing else.
    """

    name: str
    unet: dict[str, Path]
    text_encoder: dict[str, Path]
    tokenizer: dict[str, Path]
    vae: Path
    scheduler: Path
    vocoder: Path | str
    prediction_type: dict[str, str]
    latent_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    voices: tuple[str, ...] = ()
    adapter: Path | None = None
    adapter_in_memory: type[Conditioner] | None = None
    lora: Path | None = None
    durations: Path | None = None
    scene: Path | None = None
    conditions: Path | None = None
    phoneme_bert: Path | None = None
    template: str = "{}"
    schedule: dict[str, Any] = field(default_factory=dict)
    running: Running = field(default_factory=Running)
    drawings: bool = False

    @property
    def phonemes(self) -> type[Conditioner] | None:
        """The class of the phoneme adapter. Raises UserError when its folder names none.

        Looked up when it is asked for, since the adapters load diffusers: a photograph with a voice from
        elsewhere needs no adapter.
        """
        if self.adapter_in_memory is not None or self.adapter is None:
            return self.adapter_in_memory
        return adapter_class(self.adapter)

    @property
    def speaks_phonemes(self) -> bool:
        """Whether the speech branch reads phonemes with their times, or a text."""
        return self.adapter is not None or self.adapter_in_memory is not None

    def voice_id(self, voice: str | None) -> int:
        """A voice's number, from 1; None is the first voice. Raises UserError on an unknown one."""
        if not self.voices:
            return 0
        if voice is not None and voice not in self.voices:
            raise UserError(f"voice={voice!r}: expected one of {', '.join(self.voices)}."
                            f"{nearest(voice, self.voices)}")
        return self.voices.index(voice) + 1 if voice else 1

    @property
    def told_times(self) -> bool:
        """Whether the speech branch is told when each phone sounds."""
        phonemes = self.phonemes
        return phonemes is not None and phonemes.timed

    def check_pitch(self, pitch: float) -> None:
        """Raise UserError when the voice is to speak higher or lower and the adapter is told no pitch."""
        if pitch == 1:
            return
        phonemes = self.phonemes
        if phonemes is None or not phonemes.pitched:
            raise UserError(f"pitch={pitch:g}: the speech branch of {self.name} is told no pitch "
                            "(expected 1; one trained with adapter=pitched is told)")


def write_card(folder: str | Path, *, voices: Sequence[str] | None = None,
               prediction_type: dict[str, str] | None = None, template: str = "{}",
               name: str = "pocket") -> None:
    """Write what binds the parts of a family folder: `family.json` and `scheduler/`.

    Args:
        voices: in the order of their numbers; None takes the duration model's.
        prediction_type: by branch; None is v-prediction for both.
    """
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    folder = Path(folder)
    if voices is None:
        voices = read_json(folder / "speech/durations/config.json")["voices"]
    kinds = prediction_type or {"image": "v_prediction", "speech": "v_prediction"}
    with reading(folder):
        DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                      timestep_spacing="trailing", prediction_type=kinds["image"],
                      ).save_pretrained(str(folder / "scheduler"))
    write_json(folder / "family.json", {
        "name": name, "mel_spec_hash": MEL.hash, "mel_spec": MEL.to_dict(), "prediction_type": kinds,
        "voices": list(voices), "template": template})


def _there(path: Path, told: str) -> Path:
    if not path.exists():
        raise UserError(f"{path}: missing ({told})")
    return path


def _template(template: str | None, where: object) -> str:
    template = template or "{}"
    if template.count("{}") != 1:
        raise UserError(f"{where}: template {template!r}: expected one {{}} for the prompt")
    return template


def _lora(folder: str | Path | None) -> Path | None:
    if folder is None:
        return None
    if lora_file(folder) is None:
        _there(Path(folder) / LORA_FILE, "the LoRA that family.lora names")
    return Path(folder)


def pocket_layout(weights: str | Path | None = None, *, lora: str | Path | None = None,
                  template: str | None = None, name: str | None = None,
                  timestep_spacing: str = "trailing") -> Layout:
    """The layout of a family folder as `make pocket` writes it; None is the embedded one.

    Args:
        lora: folder of a LoRA for the speech UNet, as training exports it. Its `adapter/`, where there is
            one, stands in for the family's: they were trained together.

    Raises UserError when a part is missing, or when the weights were made for another mel spec.
    """
    root = Path(weights) if weights else weights_dir()
    if not root.is_dir():
        raise UserError(f"family.weights={root}: no such folder (expected a family's weights)")
    told = "part of the family's weights; make pocket writes it"
    where = _there(root / "family.json", told)
    card = read_json(where)
    MEL.check(card.get("mel_spec"), where)
    try:
        kinds, voices = dict(card["prediction_type"]), tuple(card["voices"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: {error} missing or malformed (make pocket writes it)") from error
    for branch in ("image", "speech"):
        if kinds.get(branch) not in PREDICTION_TYPES:
            raise UserError(f"{where}: prediction_type of {branch} {kinds.get(branch)!r} "
                            f"(expected one of {', '.join(PREDICTION_TYPES)})")
    for part in ("vae", "scheduler", "image/unet", "image/text_encoder", "image/tokenizer", "speech/unet",
                 "speech/adapter", "speech/durations"):
        _there(root / part, told)
    tuned = _lora(lora)
    adapter = tuned / "adapter" if tuned and (tuned / "adapter").is_dir() else root / "speech/adapter"
    shape, mean, std = latent_statistics(root / "vae")
    return Layout(
        name=name or str(card.get("name", root.name)),
        unet={branch: root / branch / "unet" for branch in ("image", "speech")},
        text_encoder={"image": root / "image/text_encoder"}, tokenizer={"image": root / "image/tokenizer"},
        vae=root / "vae", scheduler=root / "scheduler",
        vocoder=root / "vocoder" if (root / "vocoder").is_dir() else "griffin_lim", prediction_type=kinds,
        latent_shape=shape, mean=mean, std=std, voices=voices, adapter=adapter,
        lora=tuned, durations=root / "speech/durations",
        scene=root / "image/scene" if (root / "image/scene").is_dir() else None,
        template=_template(template or card.get("template"), where),
        schedule=_schedule(root / "scheduler", timestep_spacing),
        # One that was taught other pictures says so in its card.
        drawings=bool(card.get("drawings", True)))


# What is fetched of a repository: pipelines also hold pickled, single-file and half-precision copies of the
# same weights.
FETCHED = ("*/config.json", "*/*_config.json", "*/vocab.json", "*/merges.txt", "*/special_tokens_map.json",
           "*/model.safetensors", "*/diffusion_pytorch_model.safetensors", "*/diffusion_pytorch_model.bin",
           "*/pytorch_model.bin", "vocoder/*", CONDITIONS, "text_encoder_*/*", "condition_adapter_*/*")
# UNet, autoencoder and text encoder of Stable Diffusion v1.5 in float32, which Auffusion shares.
USUAL_SIZE = 4 * (859_520_964 + 83_653_863 + 123_060_480)


def split_name(name: str) -> tuple[str, str | None]:
    """`owner/name@revision` → the repository and its branch, tag or commit, or None."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


def download_command(name: str) -> str:
    """The command that fetches a repository's pipeline into a folder of its own."""
    repository, revision = split_name(name)
    at = f" --revision {revision}" if revision else ""
    # Copies of the same weights in other forms, and what is not used.
    left_out = "".join(f" --exclude '{pattern}'" for pattern in (
        "v1-5*", "*fp16*", "*non_ema*", "safety_checker/*"))
    return f"hf download {repository}{at}{left_out} --local-dir {repository.rpartition('/')[2]}"


class NotFetched(UserError):
    """Weights of the hub that are not in its cache, where the hub may not be asked."""


def find_weights(name: str, key: str, offline: bool = False, patterns: Sequence[str] = FETCHED) -> Path:
    """A local folder, or a repository of the hub (owner/name or owner/name@revision), fetched once and then
    found in its cache.

    patterns: of the files that are fetched. Raises UserError, naming the key and the command that fetches it,
    when it is neither or cannot be had.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    repository, revision = split_name(name)
    if repository.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UserError(f"{key}={name}: no such folder (expected a folder in diffusers layout, "
                        "or owner/name on the hub)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    advice = (f" Where there is a network, `{download_command(name)}` fetches it, about "
              f"{USUAL_SIZE / 1e9:.1f} GB; then give {key}=<that folder>")
    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=offline,
                                      allow_patterns=list(patterns)))
    except LocalEntryNotFoundError as error:
        if offline:
            raise NotFetched(f"{key}={name}: not in the hub's cache, and the hub is not asked.{advice}"
                             ) from error
        raise UserError(f"{key}={name}: cannot be fetched (no network?).{advice}") from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(f"{key}={name}: cannot be fetched ({str(error).splitlines()[0]}).{advice}") from error


def find_part(name: str, key: str, offline: bool = False) -> Path:
    """A part of a pipeline: a local folder such as `auffusion/unet`, or owner/name[@revision]/unet."""
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    root, _, part = name.rpartition("/")
    if name.count("/") != 2 or name.startswith((".", "/", "~")):
        raise UserError(f"{key}={name}: no such folder (expected one, or owner/name/{part or 'unet'} on the "
                        "hub)")
    # A vocoder is small, and played without the rest.
    patterns = ("vocoder/*",) if part == "vocoder" else FETCHED
    return _there(find_weights(root, key, offline, patterns) / part, "part of a pipeline in diffusers layout")


def stable_diffusion_layout(image: str, speech: str, *, lora: str | None = None, adapter: str | None = None,
                            durations: str | None = None, voices: Sequence[str] = (),
                            template: str | None = None, offline: bool = False, name: str = "sd15",
                            timestep_spacing: str = "leading", phoneme_bert: str | None = None,
                            running: Running | None = None) -> Layout:
    """Stable Diffusion v1.5 and Auffusion (or any two pipelines that share its VAE).

    Args:
        image, speech: folders in diffusers layout or hub ids, owner/name or owner/name@revision. The speech
            branch may also be of Auffusion's full layout, with condition_config.json.
        lora: folder of LoRA weights for the speech UNet, as training exports them. Its `adapter/`, where
            there is one, is the adapter unless another is given.
        adapter: folder of a phoneme adapter; without one the speech branch reads the audio prompt as a text.
        durations: folder of a duration model; needed with an adapter.
        voices: the adapter's voices in the order of their numbers.
        offline: never ask the hub.
        phoneme_bert: folder of a PL-BERT, for an adapter that reads its embeddings.
        running: how the networks are run.
    """
    tuned = _lora(lora)
    if adapter is None and tuned is not None and (tuned / "adapter").is_dir():
        adapter = str(tuned / "adapter")
    if adapter is not None and durations is None:
        raise UserError("family.durations=null: a phoneme adapter needs a duration model's folder")
    if adapter is not None and phoneme_bert is None and reads_embeddings(adapter):
        raise UserError(f"family.phoneme_bert=null: the adapter {adapter} reads embeddings of a PL-BERT, "
                        "whose folder is wanted")
    for key, folder in (("adapter", adapter), ("durations", durations), ("phoneme_bert", phoneme_bert)):
        if folder is not None:
            _there(Path(folder), f"the folder that family.{key} names")
    roots = {}
    with gathered() as step:
        for branch, source in (("image", image), ("speech", speech)):
            with step():
                roots[branch] = find_weights(source, f"family.{branch}", offline)
    told = "part of a Stable Diffusion pipeline in diffusers layout"
    conditions = roots["speech"] if adapter is None and (roots["speech"] / CONDITIONS).exists() else None
    if conditions is not None:
        condition_parts(conditions)
    texts = ["image", *(["speech"] if adapter is None and conditions is None else [])]
    for branch, root in roots.items():
        _there(root / "unet", told)
        for part in ("text_encoder", "tokenizer") if branch in texts else ():
            _there(root / part, told)
    vae = _there(roots["image"] / "vae", told)
    schedules = {branch: _schedule(_there(root / "scheduler", told), timestep_spacing)
                 for branch, root in roots.items()}
    shape, mean, std = latent_statistics(vae)
    return Layout(
        name=name, unet={b: root / "unet" for b, root in roots.items()},
        text_encoder={b: roots[b] / "text_encoder" for b in texts},
        tokenizer={b: roots[b] / "tokenizer" for b in texts}, vae=vae, scheduler=roots["image"] / "scheduler",
        vocoder=roots["speech"] / "vocoder" if (roots["speech"] / "vocoder").is_dir() else "griffin_lim",
        prediction_type={b: s.get("prediction_type", "epsilon") for b, s in schedules.items()},
        latent_shape=shape, mean=mean, std=std, voices=tuple(voices),
        adapter=Path(adapter) if adapter else None,
        lora=tuned, durations=Path(durations) if durations else None, conditions=conditions,
        phoneme_bert=Path(phoneme_bert) if phoneme_bert else None,
        template=_template(template, "family.template"), schedule=schedules["image"],
        running=running or Running())


def reads_embeddings(folder: str | Path) -> bool:
    """Whether the phoneme adapter of a folder reads embeddings, not a table of its own."""
    where = Path(folder) / "config.json"
    return where.exists() and bool(read_json(where).get("features"))


def latent_statistics(vae: Path) -> tuple[tuple[int, int, int], tuple[float, ...], tuple[float, ...]]:
    """(C, H, W) of a picture's latent, and the mean and deviation that normalise it, from a VAE's config.

    diffusers knows two ways: `latents_mean` and `latents_std` for each channel, and one `scaling_factor`.
    """
    where = vae / "config.json"
    config = read_json(where)
    try:
        channels = int(config["latent_channels"])
        down = downsampling(config)
        mean = tuple(config.get("latents_mean") or [config.get("shift_factor") or 0.0])
        std = tuple(config.get("latents_std") or [1 / config.get("scaling_factor", 0.18215)])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{where}: not the config of an AutoencoderKL ({error})") from error
    if len(mean) not in (1, channels) or len(std) not in (1, channels) or not min(std) > 0:
        raise UserError(f"{where}: {len(mean)} latents_mean and {len(std)} latents_std "
                        f"(expected {channels} of each, deviations above 0)")
    return (channels, MEL.n_mels // down, MEL.frames // down), mean, std


def _schedule(folder: Path, timestep_spacing: str) -> dict[str, Any]:
    """A scheduler's config, or UserError when its noise schedule is not Stable Diffusion's kind."""
    if timestep_spacing not in SPACINGS:
        raise UserError(f"family.timestep_spacing={timestep_spacing!r}: expected one of "
                        f"{', '.join(SPACINGS)}.{nearest(timestep_spacing, SPACINGS)}")
    where = folder / "scheduler_config.json"
    config = read_json(where)
    if config.get("beta_schedule") != "scaled_linear":
        raise UserError(f"{where}: beta_schedule {config.get('beta_schedule')!r} (expected 'scaled_linear')")
    return {**config, "timestep_spacing": timestep_spacing}
