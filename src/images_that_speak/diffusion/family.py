"""A family: an image branch and a speech branch in one latent space, and what turns latents into sound.

`pocket_layout` and `stable_diffusion_layout` say where the parts lie and check that they are there, without
loading a weight; `Family.load` loads those that are asked for. After that the two families are the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..audio.mel import MEL
from ..errors import UserError, nearest
from ..files import read_json, write_json
from ..kept import kept, stamp
from ..networks.auffusion import CONDITIONS, condition_parts
from ..networks.autoencoder import autoencoder_class, decode, downsampling, encode
from ..networks.condition import Condition
from ..resources import weights_dir
from ..speech.alignment import frame_index, frame_phones, speech_activity
from ..speech.phonemes import PHONE_IDS, UNKNOWN
from ..speech.plbert import PhonemeBERT
from .predictor import PREDICTION_TYPES, NoiseSchedule, Predictor
from .running import Running

if TYPE_CHECKING:
    from ..speech.tts import Phone

PARTS = ("image", "speech", "vae", "vocoder")
SPACINGS = ("trailing", "leading", "linspace")
LORA_FILE = "pytorch_lora_weights.safetensors"
UNFROZEN_FILE = "unfrozen.safetensors"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


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
    phoneme_bert: folder of the PL-BERT whose embeddings the adapter reads, where it reads any.
    prediction_type: by branch, what its UNet predicts.
    latent_shape: (C, H, W). mean, std: per channel or one for all, latent = (z − mean)/std.
    template: what the image prompt is put into at "{}", the form of caption the image branch was taught.
    schedule: the noise schedule, as diffusers' schedulers are configured.
    running: how the networks are run.
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
    lora: Path | None = None
    durations: Path | None = None
    scene: Path | None = None
    conditions: Path | None = None
    phoneme_bert: Path | None = None
    template: str = "{}"
    schedule: dict[str, Any] = field(default_factory=dict)
    running: Running = field(default_factory=Running)

    @property
    def speaks_phonemes(self) -> bool:
        """Whether the speech branch reads phonemes with their times, or a text."""
        return self.adapter is not None

    def voice_id(self, voice: str | None) -> int:
        """A voice's number, from 1; None is the first voice. Raises UserError on an unknown one."""
        if not self.voices:
            return 0
        if voice is not None and voice not in self.voices:
            raise UserError(f"voice={voice!r}: expected one of {', '.join(self.voices)}."
                            f"{nearest(voice, self.voices)}")
        return self.voices.index(voice) + 1 if voice else 1


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
    with _reading(folder):
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
        latent_shape=shape, mean=mean, std=std, voices=voices, adapter=adapter, lora=tuned,
        durations=root / "speech/durations",
        scene=root / "image/scene" if (root / "image/scene").is_dir() else None,
        template=_template(template or card.get("template"), where),
        schedule=_schedule(root / "scheduler", timestep_spacing))


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


def find_weights(name: str, key: str, offline: bool = False) -> Path:
    """A local folder, or a repository of the hub (owner/name or owner/name@revision), fetched once and then
    found in its cache.

    Raises UserError, naming the key and the command that fetches it, when it is neither or cannot be had.
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
                                      allow_patterns=list(FETCHED)))
    except LocalEntryNotFoundError as error:
        told = ("not in the hub's cache, and family.offline=true" if offline
                else "cannot be fetched (no network?)")
        raise UserError(f"{key}={name}: {told}.{advice}") from error
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
    return _there(find_weights(root, key, offline) / part, "part of a pipeline in diffusers layout")


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
    roots = {"image": find_weights(image, "family.image", offline),
             "speech": find_weights(speech, "family.speech", offline)}
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
        adapter=Path(adapter) if adapter else None, lora=tuned,
        durations=Path(durations) if durations else None, conditions=conditions,
        phoneme_bert=Path(phoneme_bert) if phoneme_bert else None,
        template=_template(template, "family.template"), schedule=schedules["image"],
        running=running or Running())


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


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """One error naming the folder for all that the libraries raise on missing, broken or foreign weights."""
    from safetensors import SafetensorError

    try:
        yield
    except UserError:
        raise
    except SafetensorError as error:
        raise UserError(f"{folder}: truncated or broken safetensors ({error}); fetch it again") from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder}: cannot be loaded ({said})") from error


def load_model(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    """`cls.from_pretrained` of a local folder, for inference. Raises UserError when a weight is missing."""
    if not (folder / "config.json").exists():
        raise UserError(f"{folder}: no config.json (expected a folder that {cls.__name__} loads)")
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging

    # A bar for each part, gone in a moment, is noise before the one that matters.
    logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    with _reading(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded, info = cls.from_pretrained(str(folder), torch_dtype=dtype, local_files_only=True,
                                           output_loading_info=True)
    if missing := sorted(info["missing_keys"]):
        raise UserError(f"{folder}: lacks {len(missing)} weights, {missing[0]} among them; "
                        "the file is truncated or of another model")
    return loaded.eval().requires_grad_(False)


def apply_lora(unet: Any, folder: Path) -> None:
    """Fuse the LoRA in `folder` into `unet`, after the parameters that were trained whole beside it.

    Raises UserError on files that are broken or were made for another UNet.
    """
    with _reading(folder):
        if (folder / UNFROZEN_FILE).exists():
            whole = load_file(folder / UNFROZEN_FILE)
            if strangers := unet.load_state_dict(whole, strict=False).unexpected_keys:
                raise UserError(f"{folder / UNFROZEN_FILE}: {strangers[0]} is no parameter of the speech "
                                "UNet; the LoRA is of another one")
        unet.load_lora_adapter(str(folder), prefix="unet", local_files_only=True, weight_name=LORA_FILE)
        unet.fuse_lora()


def load_adapter(folder: Path, dtype: torch.dtype) -> Any:
    """The phoneme adapter saved in `folder`, of the class that its config names."""
    from ..networks.adapters import ADAPTERS

    classes = {cls.__name__: cls for cls in ADAPTERS.values()}
    name = read_json(folder / "config.json").get("_class_name")
    if name not in classes:
        raise UserError(f"{folder}/config.json: _class_name {name!r} (expected one of {', '.join(classes)})."
                        f"{nearest(name, classes)}")
    return load_model(classes[name], folder, dtype)


def reads_embeddings(folder: str | Path) -> bool:
    """Whether the phoneme adapter of a folder reads embeddings, not a table of its own."""
    where = Path(folder) / "config.json"
    return where.exists() and bool(read_json(where).get("features"))


@dataclass
class Family:
    """The loaded parts of a family; those not asked for are None or absent.

    Everything here is inference: no gradients, `eval` mode.
    """

    layout: Layout
    device: torch.device
    predictors: dict[str, Predictor] = field(default_factory=dict)
    conditioners: dict[str, Any] = field(default_factory=dict)
    vae: Any = None
    vocoder: Any = None
    phoneme_bert: PhonemeBERT | None = None

    @classmethod
    def load(cls, source: Layout | str | Path | None = None, parts: Iterable[str] = PARTS, *,
             device: str = "cpu", dtype: str = "float32", vocoder: str | Path | None = None) -> Family:
        """Load `parts` of a layout, or of a pocket family's folder (None: the embedded one).

        Args:
            parts: of "image", "speech", "vae", "vocoder".
            device: "cpu", "cuda", "cuda:1", … or "auto".
            dtype: of the UNets and text encoders, a key of DTYPES. The VAE stays in float32 on the CPU.
            vocoder: another vocoder folder, or "griffin_lim".

        Raises UserError on missing, truncated or foreign weights, or an unknown part, device or dtype.
        """
        layout = source if isinstance(source, Layout) else pocket_layout(source)
        parts = tuple(parts)
        if unknown := [part for part in parts if part not in PARTS]:
            raise UserError(f"parts: {unknown[0]!r}: expected some of {', '.join(PARTS)}."
                            f"{nearest(unknown[0], PARTS)}")
        if dtype not in DTYPES:
            raise UserError(f"precision.dtype={dtype!r}: expected one of {', '.join(DTYPES)}."
                            f"{nearest(dtype, DTYPES)}")
        family = cls(layout, find_device(device))
        on = str(family.device)
        for branch in ("image", "speech"):
            if branch in parts:
                key = (branch, _determining(layout, branch), dtype, on)
                family.predictors[branch], family.conditioners[branch] = kept(
                    key, lambda branch=branch: family._load_branch(branch, DTYPES[dtype]))  # type: ignore
        if "speech" in parts and layout.phoneme_bert is not None:
            family.phoneme_bert = kept(("PL-BERT", stamp(layout.phoneme_bert), on),
                                       lambda: PhonemeBERT.from_pretrained(str(layout.phoneme_bert)))
        if "vae" in parts:
            precision = DTYPES[dtype] if family.device.type == "cuda" else torch.float32
            family.vae = kept(("vae", stamp(layout.vae), precision, on, layout.running),
                              lambda: layout.running.autoencoder(load_model(
                                  autoencoder_class(layout.vae), layout.vae, precision), family.device))
        if "vocoder" in parts:
            from ..audio.vocoder import load_vocoder

            chosen = vocoder or layout.vocoder
            family.vocoder = kept(("vocoder", stamp(chosen), on),
                                  lambda: load_vocoder(chosen).to(family.device))
        return family

    def _load_branch(self, branch: str, dtype: torch.dtype) -> tuple[Predictor, Any]:
        from diffusers import UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        from ..networks.auffusion import AdaptedTextConditioner
        from ..networks.scene import SceneAdapter, SceneConditioner
        from ..networks.text import TextConditioner

        layout = self.layout
        unet = load_model(UNet2DConditionModel, layout.unet[branch], dtype)
        if unet.config.in_channels != layout.latent_shape[0]:
            raise UserError(f"{layout.unet[branch]}: made for {unet.config.in_channels} latent channels "
                            f"(expected {layout.latent_shape[0]}, as the autoencoder has)")
        if branch == "speech" and layout.lora is not None:
            apply_lora(unet, layout.lora)
        if branch in layout.text_encoder:
            encoder = load_model(CLIPTextModel, layout.text_encoder[branch], dtype)
            words = layout.tokenizer[branch]
            with _reading(words):
                tokenizer = CLIPTokenizer.from_pretrained(str(words), local_files_only=True)
            text = TextConditioner(encoder, tokenizer)
            conditioner: nn.Module = text
            if branch == "image" and layout.scene is not None:
                conditioner = SceneConditioner(text, load_model(SceneAdapter, layout.scene, dtype))
        elif layout.conditions is not None:
            with _reading(layout.conditions):
                conditioner = AdaptedTextConditioner.from_pretrained(layout.conditions, dtype)
        else:
            assert layout.adapter is not None
            conditioner = load_adapter(layout.adapter, dtype)
        config = layout.schedule
        schedule = NoiseSchedule(int(config.get("num_train_timesteps", 1000)), float(config["beta_start"]),
                                 float(config["beta_end"]))
        running = layout.running
        return (Predictor(running.unet(unet, self.device), schedule, layout.prediction_type[branch]),
                running.module(conditioner, self.device))

    @torch.no_grad()
    def text_condition(self, branch: str, prompts: Sequence[str],
                       scenes: np.ndarray | None = None) -> Condition:
        """The condition of B texts; the image branch's are put into the template first.

        scenes: (B, COPIES, 5) squares, where the branch takes them.
        """
        conditioner = self.conditioners[branch]
        if branch == "image":
            prompts = [self.layout.template.replace("{}", prompt) for prompt in prompts]
        batch = {"input_ids": conditioner.tokenize(list(prompts)).to(self.device)}
        if scenes is not None:
            batch["scene"] = torch.as_tensor(scenes, dtype=torch.float32, device=self.device)
        return conditioner.encode(batch)

    @torch.no_grad()
    def phone_condition(self, plans: Sequence[Sequence[Phone]], voices: Sequence[int],
                        texts: Sequence[str] | None = None) -> Condition:
        """The condition of B phrases, each a list of phones with times, spoken by voices (numbers from 1).

        texts: what they say; a PL-BERT sees from them where words begin.
        """
        batch = phone_batch(plans, voices)
        if self.phoneme_bert is not None:
            embedded = self.phoneme_bert.embed([[phone.symbol for phone in plan] for plan in plans], texts)
            batch["phone_embedding"] = nn.utils.rnn.pad_sequence(embedded, batch_first=True)
            index = [torch.from_numpy(frame_index(plan, MEL.frames)) for plan in plans]
            batch["frame_index"] = torch.stack(index)
        batch = {key: value.to(self.device) for key, value in batch.items()}
        return self.conditioners["speech"].encode(batch)

    @torch.no_grad()
    def null(self, branch: str, n: int) -> Condition:
        """The condition of n samples about which nothing is said."""
        return self.conditioners[branch].null(n)

    def latents(self, pictures: Tensor) -> Tensor:
        """`encode` through which gradients reach the pictures."""
        z = encode(self.vae, pictures[:, None].to(self.device, self.vae.dtype)).mean.float()
        mean, std = self._statistics(z)
        return (z - mean) / std

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """(B, 256, 1024) pictures in [0, 1] → (B, C, H, W) normalised latents, the posterior's mean."""
        return self.latents(pictures)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, H, W) normalised latents → (B, 256, 1024) pictures in [0, 1], on the CPU.

        A colour autoencoder's picture is the mean of its channels. One at a time: the decoder's feature maps
        are by far the largest tensors of a generation.
        """
        mean, std = self._statistics(latents)
        z = (latents * std + mean).to(self.device, self.vae.dtype)
        decoded = [decode(self.vae, one[None])[:, 0] for one in z]
        return torch.cat(decoded).clamp(0, 1).cpu()

    @torch.no_grad()
    def encode_colour(self, rgb: Tensor) -> Tensor:
        """(B, 3, 256, 1024) colour pictures in [0, 1] → (B, C, H, W) normalised latents, where the
        autoencoder knows colours."""
        z = self.vae.encode((rgb * 2 - 1).to(self.device, self.vae.dtype)).latent_dist.mean.float()
        mean, std = self._statistics(z)
        return (z - mean) / std

    @torch.no_grad()
    def decode_colour(self, latents: Tensor) -> Tensor:
        """(B, C, H, W) normalised latents → (B, 3, 256, 1024) colour pictures, about [0, 1]."""
        mean, std = self._statistics(latents)
        z = (latents * std + mean).to(self.device, self.vae.dtype)
        return self.vae.decode(z).sample.float() / 2 + 0.5

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(x, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)
                     for x in (self.layout.mean, self.layout.std))
        return mean, std


# What no branch is made of, and what only the other branch is.
ELSEWHERE = {"image": ("adapter", "lora", "conditions"), "speech": ("scene",)}
BESIDE = ("name", "template", "vae", "vocoder", "durations", "voices", "mean", "std", "scheduler",
          "phoneme_bert")


def _determining(layout: Layout, branch: str) -> Hashable:
    """All of a layout that a loaded branch depends on: folders by what lies there, all else as it is."""
    found: list[Hashable] = []
    for item in fields(layout):
        if item.name not in (*BESIDE, *ELSEWHERE[branch]):
            value = getattr(layout, item.name)
            value = value.get(branch) if isinstance(value, dict) and "image" in value else value
            found.append(stamp(value) if isinstance(value, Path) else repr(value))
    return tuple(found)


def find_device(device: str) -> torch.device:
    """"auto" is the first GPU, or else the CPU. Raises UserError on a device this machine lacks."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"device={device!r}: expected auto, cpu, cuda or mps") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={device!r}: torch finds {torch.cuda.device_count()} GPUs here "
                        "(device=cpu does without)")
    return found


def phone_batch(plans: Sequence[Sequence[Phone]], voices: Sequence[int]) -> dict[str, Tensor]:
    """What the phoneme adapters read of B phrases: "phones", "phone_mask", "frame_phones", "frame_position",
    "voice". L is the longest phrase; padding has id 0."""
    ids = [torch.tensor([PHONE_IDS.get(p.symbol, PHONE_IDS[UNKNOWN]) for p in plan]) for plan in plans]
    phones = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=0)
    lengths = torch.tensor([len(plan) for plan in plans])
    frames = [frame_phones(plan, MEL.frames) for plan in plans]
    return {"phones": phones, "phone_mask": torch.arange(phones.shape[1])[None] < lengths[:, None],
            "frame_phones": torch.stack([torch.from_numpy(ids) for ids, _ in frames]),
            "frame_position": torch.stack([torch.from_numpy(position) for _, position in frames]),
            "voice": torch.tensor(list(voices))}


def activity(plans: Sequence[Sequence[Phone]]) -> Tensor:
    """(B, 1024) in [0, 1]: the share of each frame in which a phone sounds."""
    return torch.stack([torch.from_numpy(speech_activity(plan, MEL.frames)) for plan in plans])


if __name__ == "__main__":
    import sys

    write_card(sys.argv[1] if len(sys.argv) > 1 else weights_dir())
