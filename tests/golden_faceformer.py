"""Loads the golden FaceFormer files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from s2f_rl.models import FaceFormer

GOLDEN = Path(__file__).parents[0] / "golden"


def load(topology: str):
    data = np.load(GOLDEN / f"faceformer_{topology}.npz")
    config = json.loads(bytes(data["config_json"]).decode())
    state = {k[3:]: torch.from_numpy(data[k]) for k in data.files if k.startswith("sd/")}
    model = FaceFormer.from_reference(state, topology, config["period"], config["wav2vec2"]).eval()
    inputs = [torch.from_numpy(data[f"in/{k}"]) for k in ("audio", "template", "one_hot")]
    return data, model, inputs, state
