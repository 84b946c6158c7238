"""Generators of a metric's own randomness: directions, random filters, ties, halves."""

from __future__ import annotations

import torch


def stream(seed: int = 0, purpose: int = 0) -> torch.Generator:
    """A generator on the CPU, from a seed that is mixed first.

    Fields are often drawn from generators with seeds like 0 and 1. Directions or ties from the same ones would be the same numbers, and
    no longer independent of the data.

    Arguments:
        seed: whole number.
        purpose: another one, for draws that must be independent under one seed.
    """
    mixed = (seed * 0x9E3779B97F4A7C15 + purpose * 0xD1B54A32D192ED03 + 0x2545F4914F6CDD1D) % 2**64
    for shift in (30, 27):
        mixed = (mixed ^ (mixed >> shift)) * 0xBF58476D1CE4E5B9 % 2**64
    return torch.Generator().manual_seed((mixed ^ (mixed >> 31)) % 2**63)
