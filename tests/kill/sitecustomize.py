"""Put this folder on PYTHONPATH, and every Python process below is watched: see injection.py."""

from __future__ import annotations

import os

if os.environ.get("S2F_RL_KILL") or os.environ.get("S2F_RL_MOMENTS"):
    from injection import install

    install(os.environ.get("S2F_RL_KILL"), os.environ.get("S2F_RL_MOMENTS"))
