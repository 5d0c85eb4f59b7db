"""Phonemes → condition: without order, with order, with time, with time and pitch, and as published."""

from .aligned import AlignedAdapter
from .phonemes import MODULE, PhonemeAdapter, PooledAdapter, PublishedAdapter, SequenceAdapter
from .pitched import PitchedAdapter, pitched_adapter

ADAPTERS = {"pooled": PooledAdapter, "sequence": SequenceAdapter, "aligned": AlignedAdapter,
            "pitched": PitchedAdapter, "published": PublishedAdapter}

__all__ = ["ADAPTERS", "MODULE", "AlignedAdapter", "PhonemeAdapter", "PitchedAdapter", "PooledAdapter",
           "PublishedAdapter", "SequenceAdapter", "pitched_adapter"]
