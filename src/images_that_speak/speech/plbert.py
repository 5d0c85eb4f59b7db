"""PL-BERT (Li et al. 2023): embeddings of a phrase's phonemes in their order.

Its tokens are characters of the International Phonetic Alphabet, looked up in a table of 178 symbols (not in
the map of word tokens that comes with the checkpoint, which is for the words it learnt to predict). A phone
of two characters has the mean of their embeddings. Words are separated by spaces, as in its training; stress
is not marked, for our phones carry none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..weights import finite
from .phonemes import PAUSE, UNKNOWN, text_to_phones, to_ipa

SYMBOLS = ("$" ';:,.!?¡¿—…"«»“” '
           "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
           "ɑɐɒæɓʙβɔɕçɗɖðʤəɘɚɛɜɝɞɟʄɡɠɢʛɦɧħɥʜɨɪʝɭɬɫɮʟɱɯɰŋɳɲɴøɵɸθœɶʘɹɺɾɻʀʁɽʂʃʈʧʉʊʋⱱʌɣɤʍχʎʏʑʐʒʔʡʕʢǀǁǂǃˈˌːˑʼʴʰʱʲʷˠˤ˞↓↑→↗↘'"
           "\N{COMBINING VERTICAL LINE BELOW}'ᵻ")
# "'" stands in it twice; the published code looks up the second.
SYMBOL_IDS = {symbol: i for i, symbol in enumerate(SYMBOLS)}
PAD, SPACE = SYMBOL_IDS["$"], SYMBOL_IDS[" "]
# Where espeak, whose phonemes it learnt from, writes otherwise than speech.phonemes.IPA.
ESPEAK = {"aa": "ɑː", "ao": "ɔː", "er": "ɜː", "iy": "iː", "uw": "uː", UNKNOWN: "U"}


def spell(phones: Sequence[str], words: Sequence[int] = ()) -> tuple[list[int], list[int]]:
    """Phones → ids of symbols, and for each symbol the index of its phone, -1 for a space.

    words: indices of the phones with which words begin; a space goes before each but the first. A pause is a
    space too.
    """
    ids: list[int] = []
    owner: list[int] = []
    for i, phone in enumerate(phones):
        if phone != PAUSE and i in words and ids and ids[-1] != SPACE:
            ids.append(SPACE)
            owner.append(-1)
        for symbol in " " if phone == PAUSE else ESPEAK.get(phone) or to_ipa([phone]):
            ids.append(SYMBOL_IDS[symbol])
            owner.append(i)
    return ids, owner


def word_starts(phones: Sequence[str], text: str | None) -> list[int]:
    """Indices of the phones with which the words of `text` begin; none where a word has another count of
    phones than the dictionary gives."""
    sounding = [i for i, phone in enumerate(phones) if phone != PAUSE]
    counts = [len(word) for word in text_to_phones(text)] if text else []
    if sum(counts) != len(sounding):
        return []
    return [sounding[sum(counts[:n])] for n in range(len(counts))]


class PhonemeBERT:
    """A frozen PL-BERT. `width` is that of its embeddings, `hash` says which it is."""

    def __init__(self, model: Any):
        self.model = model.eval().requires_grad_(False)
        if model.config.vocab_size < len(SYMBOLS):
            raise UserError(f"PL-BERT with {model.config.vocab_size} symbols (expected {len(SYMBOLS)})")
        self.width = int(model.config.hidden_size)
        digest = hashlib.sha256()
        for name, value in sorted(model.state_dict().items()):
            digest.update(name.encode() + value.cpu().half().numpy().tobytes())
        self.hash = digest.hexdigest()[:12]

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> PhonemeBERT:
        """From a transformers folder (config.json, model.safetensors), or the original layout (config.yml and
        step_N.t7, the newest), which is read as plain weights.

        Raises UserError on files that are missing, hold more than weights, or do not fit.
        """
        from transformers import AlbertModel

        folder = Path(folder)
        if (folder / "config.json").exists():
            try:
                return cls(finite(AlbertModel.from_pretrained(str(folder), local_files_only=True), folder))
            except (OSError, ValueError, RuntimeError) as error:
                raise UserError(f"{folder}: cannot be loaded as AlbertModel "
                                f"({str(error).splitlines()[0]})") from error
        if (folder / "config.yml").exists():
            return cls(_original(folder))
        raise UserError(f"{folder}: no PL-BERT (expected config.json and model.safetensors, or config.yml "
                        "and step_N.t7)")

    @torch.no_grad()
    def embed(self, phrases: Sequence[Sequence[str]],
              texts: Sequence[str | None] | None = None) -> list[Tensor]:
        """Phrases, each a list of phones → for each (L, width): one vector a phone.

        texts: what the phrases say, from which the spaces between words are known.
        """
        spelt = [spell(phones, word_starts(phones, text)) for phones, text
                 in zip(phrases, texts or [None] * len(phrases), strict=True)]
        device = next(self.model.parameters()).device
        ids = nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids, _ in spelt], True, PAD).to(device)
        if ids.shape[1] > self.model.config.max_position_embeddings:
            raise UserError(f"PL-BERT: a phrase of {ids.shape[1]} symbols (expected at most "
                            f"{self.model.config.max_position_embeddings})")
        lengths = torch.tensor([len(ids) for ids, _ in spelt], device=device)
        mask = (torch.arange(ids.shape[1], device=device) < lengths[:, None]).long()
        features = self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        found = []
        for phones, (_, owner), row in zip(phrases, spelt, features, strict=True):
            index = torch.tensor(owner, device=device)
            inside = torch.nn.functional.one_hot(index + 1, len(phones) + 1)[:, 1:].float()
            found.append(inside.T @ row[: len(owner)] / inside.sum(0)[:, None].clamp(min=1))
        return found


def _original(folder: Path) -> Any:
    """The AlbertModel of an original checkpoint: {"net": state} with `module.encoder.` before the names."""
    import yaml
    from transformers import AlbertConfig, AlbertModel

    from ..audio.hifigan import torch_load
    from ..audio.vocoder_base import load_strictly

    steps = {int(path.stem[5:]): path for path in folder.glob("step_*.t7") if path.stem[5:].isdigit()}
    if not steps:
        raise UserError(f"{folder}: no step_N.t7 (expected a PL-BERT checkpoint beside config.yml)")
    path = steps[max(steps)]
    try:
        told = yaml.safe_load((folder / "config.yml").read_text(encoding="utf-8"))
        config = AlbertConfig(**told["model_params"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / 'config.yml'}: {error} (expected a section model_params)") from error
    content = torch_load(path)
    if not isinstance(content, dict) or not isinstance(content.get("net"), dict):
        raise UserError(f"{path}: no key net (expected a PL-BERT checkpoint)")
    named = {name.removeprefix("module."): value for name, value in content["net"].items()}
    state = {name.removeprefix("encoder."): value for name,
             value in named.items() if name.startswith("encoder.")}
    # Older versions of transformers stored it; it is counted, not learnt.
    state.pop("embeddings.position_ids", None)
    model = AlbertModel(config)
    load_strictly(model, state, path)
    return model
