"""PL-BERT: its symbols, both layouts of its weights, embeddings phone by phone, and adapters that read
them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import AlbertConfig, AlbertModel

from images_that_speak.data.embeddings import EmbeddingCache, cache_embeddings
from images_that_speak.diffusion.family import phone_batch
from images_that_speak.errors import UserError
from images_that_speak.networks.adapters import (
    AlignedAdapter,
    PooledAdapter,
    PublishedAdapter,
    SequenceAdapter,
)
from images_that_speak.speech.alignment import frame_index, frame_phones
from images_that_speak.speech.phonemes import PHONE_IDS, PHONES
from images_that_speak.speech.plbert import SYMBOL_IDS, SYMBOLS, PhonemeBERT, spell, word_starts
from images_that_speak.speech.tts import Phone

SIZES = {"vocab_size": 178, "hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 32,
         "max_position_embeddings": 64, "num_hidden_layers": 2}
CHAIR = ["ch", "eh", "r"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """The same random weights in transformers' layout and in the original one."""
    torch.manual_seed(0)
    model = AlbertModel(AlbertConfig(**SIZES, embedding_size=16))
    modern, original = tmp_path_factory.mktemp("modern"), tmp_path_factory.mktemp("original")
    model.save_pretrained(modern)
    (original / "config.yml").write_text(yaml.safe_dump({"model_params": {**SIZES, "embedding_size": 16}}))
    state = {f"module.encoder.{name}": value for name, value in model.state_dict().items()}
    # Heads of its training, and what older versions of transformers stored.
    state |= {"module.mask_predictor.weight": torch.zeros(2, 2),
              "module.encoder.embeddings.position_ids": torch.arange(64)[None]}
    torch.save({"net": {}, "step": 0}, original / "step_900.t7")
    torch.save({"net": state, "step": 1}, original / "step_1000.t7")
    return modern, original


def test_symbols_are_the_published_178():
    assert len(SYMBOLS) == 178
    assert [SYMBOL_IDS[s] for s in "$; Aaɑᵻ"] == [0, 1, 16, 17, 43, 69, 177]


def test_every_phone_can_be_spelt():
    ids, owner = spell(PHONES[1:])
    assert max(ids) < 178 and set(owner) == set(range(len(PHONES) - 1))
    assert spell(CHAIR) == ([SYMBOL_IDS[s] for s in "tʃɛɹ"], [0, 0, 1, 2])


def test_words_are_parted_by_spaces():
    phones = ["pau", "hh", "ae", "p", "iy", "k", "ae", "t", "s", "pau"]
    assert word_starts(phones, "Happy cats!") == [1, 5]
    assert word_starts(phones, "a dog") == [] and word_starts(phones, None) == []
    ids, owner = spell(phones[1:-1], [0, 4])
    assert [SYMBOLS[i] for i in ids] == list("hæpiː kæts") and owner.count(-1) == 1


@torch.no_grad()
def test_both_layouts_give_the_model_s_own_features(folders):
    found = [PhonemeBERT.from_pretrained(folder) for folder in folders]
    assert found[0].hash == found[1].hash and found[0].width == 24
    short, long = found[1].embed([CHAIR, ["k", "ae", "t", "s", "pau", "m"]])
    features = found[0].model(input_ids=torch.tensor([spell(CHAIR)[0]])).last_hidden_state[0]
    expected = torch.stack([features[:2].mean(0), features[2], features[3]])
    torch.testing.assert_close(short, expected, rtol=1e-4, atol=1e-5)
    assert long.shape == (6, 24)


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_pickles_that_hold_more_than_weights_are_refused(folders, tmp_path, capsys):
    (tmp_path / "config.yml").write_text((folders[1] / "config.yml").read_text())
    (tmp_path / "step_1.t7").write_bytes(pickle.dumps({"net": Evil()}))
    with pytest.raises(UserError, match="step_1.t7: not a readable checkpoint of plain weights"):
        PhonemeBERT.from_pretrained(tmp_path)
    assert "run" not in capsys.readouterr().out
    torch.save({"net": {"module.encoder.pooler.weight": torch.zeros(1)}}, tmp_path / "step_2.t7")
    with pytest.raises(UserError, match="step_2.t7: does not fit its config"):
        PhonemeBERT.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="no PL-BERT"):
        PhonemeBERT.from_pretrained(tmp_path / "nowhere")


def test_embeddings_are_kept_and_belong_to_one_corpus(folders, tmp_path):
    bert = PhonemeBERT.from_pretrained(folders[0])
    phrases = [["k", "ae", "t"], CHAIR * 3, ["ow"]]
    kept = cache_embeddings(bert, phrases, [None] * 3, "one", tmp_path / "e.safetensors", batch_size=2)
    assert len(kept) == 3 and kept.width == 24
    for value, one in zip(kept[np.array([2, 0])], bert.embed([phrases[2]]) + bert.embed([phrases[0]]),
                          strict=True):
        np.testing.assert_allclose(value, one.numpy(), atol=5e-3)
    with pytest.raises(UserError, match="made for another dataset .'one', expected 'two'"):
        EmbeddingCache(tmp_path / "e.safetensors", "two")


def test_a_frame_belongs_to_the_phone_that_sounds_there():
    plan = [Phone("hh", 1.0, 1.2), Phone("ax", 1.2, 1.5), Phone("l", 2.0, 2.4)]
    index = frame_index(plan)
    ids, _ = frame_phones(plan)
    assert index[:100].max() == -1 and index[110] == 0 and index[130] == 1 and index[180] == -1
    inside = index >= 0
    assert (ids[inside] == np.array([PHONE_IDS[p.symbol] for p in plan])[index[inside]]).all()
    assert (ids[~inside] == PHONE_IDS["pau"]).all()


def embedded_batch(bert: PhonemeBERT) -> dict[str, torch.Tensor]:
    plans = [[Phone("ch", 1.0, 1.2), Phone("eh", 1.2, 1.6), Phone("r", 1.6, 2.0)], [Phone("ow", 3.0, 3.5)]]
    batch = phone_batch(plans, [1, 2])
    vectors = bert.embed([[phone.symbol for phone in plan] for plan in plans])
    return {**batch, "phone_embedding": torch.nn.utils.rnn.pad_sequence(vectors, batch_first=True),
            "frame_index": torch.stack([torch.from_numpy(frame_index(plan)) for plan in plans])}


@pytest.mark.parametrize("adapter", [
    PooledAdapter(43, 2, width=16, features=24), SequenceAdapter(43, 2, width=16, features=24),
    AlignedAdapter(43, 2, channels=16, width=16, hidden=16, embedding=8, layers=1, features=24),
    PublishedAdapter(24, 16, 7)], ids=lambda adapter: type(adapter).__name__)
@torch.no_grad()
def test_adapters_read_embeddings_in_place_of_a_table(adapter, folders, tmp_path):
    adapter = adapter.eval()
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    batch = embedded_batch(PhonemeBERT.from_pretrained(folders[0]))
    said = adapter.encode(batch)
    other = {**batch, "phone_embedding": batch["phone_embedding"] * 2}
    assert (adapter.encode(other).tokens - said.tokens).abs().max() > 1e-3
    # Which phone it is is read from the embedding alone.
    assert adapter.encode({**batch, "phones": batch["phones"] * 0 + 5,
                           "frame_phones": batch["frame_phones"] * 0}
                          ).tokens.equal(said.tokens)
    null = adapter.null(1)
    dropped = adapter.encode(adapter.drop({**batch, "frame_position": batch["frame_position"] * 0},
                                          torch.tensor([True, True])))
    torch.testing.assert_close(dropped.tokens[:1, 0], null.tokens[:, 0], rtol=1e-4, atol=1e-5)
    adapter.save_pretrained(tmp_path)
    assert type(adapter).from_pretrained(tmp_path).eval().encode(batch).tokens.equal(said.tokens)


@torch.no_grad()
def test_the_aligned_adapter_puts_embeddings_where_they_sound(folders):
    adapter = AlignedAdapter(43, 2, channels=16, width=16, hidden=16, embedding=8, layers=1, features=24)
    batch = embedded_batch(PhonemeBERT.from_pretrained(folders[0]))
    frames = adapter.frames(batch)
    torch.testing.assert_close(frames[0, 130], adapter.phone(batch["phone_embedding"][0, 1]))
    assert frames[0, 500].equal(adapter.phone.bias) and frames[1, 50].equal(adapter.phone.bias)
