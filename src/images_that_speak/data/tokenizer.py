"""The small CLIP tokenizer of the pocket family: byte-pair codes learnt from the captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .captions import captions

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
CONTEXT = 24  # tokens; the longest caption takes 17


def build_tokenizer(out_dir: str | Path, vocab_size: int = 1024) -> CLIPTokenizer:
    """Learn the codes, save them to `out_dir` and return the tokenizer as it is loaded from there.

    Layout of the vocabulary, as in CLIP: 256 bytes, 256 bytes that end a word, the merges, start, end. So any
    text has tokens, words of captions mostly one each, and the end token has the largest id (CLIP's pooling
    by argmax). At most `vocab_size` tokens.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    learner.train_from_iterator([caption.text for caption in captions()], trainer)
    merges: Any = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    merges = merges[: vocab_size - 2 * len(letters) - 2]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocab = {token: index for index, token in enumerate(dict.fromkeys([*tokens, START, END]))}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CONTEXT)
    tokenizer.save_pretrained(str(out_dir))
    return CLIPTokenizer.from_pretrained(str(out_dir))
