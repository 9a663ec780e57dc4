"""Zones of the connection tracker. Bridges of one userspace datapath share it: these are of nobody else, likely."""

from __future__ import annotations

TRANSLATED = 0xF5F5  # what guests begin, and what is forwarded to them
HAIRPIN = 0xF5F6  # what guests begin towards their own host's forwards
FRAGMENTS_OUT, FRAGMENTS_IN = 0xF5F7, 0xF5F8  # fragments from and for floating addresses
