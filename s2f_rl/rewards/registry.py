"""Kinds of rewards by name, and how a part of a config becomes a reward."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from s2f_rl.data.contract import Corpus
from s2f_rl.errors import UserError
from s2f_rl.registry import Registry
from s2f_rl.rewards.articulation.density_files import is_articulation
from s2f_rl.rewards.articulation.likelihood import ArticulationReward
from s2f_rl.rewards.contract import Reward
from s2f_rl.rewards.judge.judge import AnyReward, load_scorer

REWARDS: Registry[Any] = Registry(
    "rewards",
    {
        "articulation": "s2f_rl.rewards.articulation.likelihood:ArticulationReward",
        "closure": "s2f_rl.rewards.articulation.closure:ClosureReward",
        "perceptual": "s2f_rl.rewards.model.perceptual:PerceptualReward",
    },
)
"""Kinds of rewards: ours, entry points of the group ``s2f_rl.rewards``, and import paths that a person names."""

CACHE = "cache_folder"


def part_maker(kind: str, options: Mapping[str, object], place: str) -> Callable[..., Reward]:
    """What makes a reward of this kind from these options; nothing is read yet.

    Args:
        kind: a name, or ``package.module:Name``.
        options: keyword arguments beyond ``corpus`` and ``device``.
        place: key of the part, for messages.

    Raises:
        UserError: no such kind, an option that it does not have, or one that it needs.
    """
    try:
        found = REWARDS.named_by_person(kind)
    except UserError as error:
        raise UserError(f"{place}.kind={error}") from error
    make = getattr(found, "from_options", found)
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError) as error:  # not to be called, or without a signature as much of what Python brings
        raise UserError(f"{place}.kind={kind}: is no reward; see s2f_rl.rewards.Reward") from error
    if isinstance(make, type) and make.__init__ in (Reward.__init__, object.__init__):  # type: ignore[misc]
        raise UserError(f"{place}.kind={kind}: cannot be made; give it an __init__(self, corpus, device, ...)")
    known = dict(list(signature.parameters.items())[2:])  # after corpus and device
    if not any(each.kind is each.VAR_KEYWORD for each in known.values()):
        for name in options:
            if name not in known:
                ours = ", ".join(["kind", "weight", "weights", *(key for key in known if key != CACHE)])
                raise UserError(f"unknown key '{place}.{name}'; use {ours}")
    for name, each in known.items():
        needed = each.default is each.empty and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
        if needed and name not in options and name != CACHE:
            raise UserError(f"{place}.{name}: missing; give {place}.{name}=...")
    given: dict[str, object] = {name: None for name in known if name == CACHE}
    try:
        signature.bind(None, None, **{**given, **options})
    except TypeError as error:
        raise UserError(
            f"{place}.kind={kind}: cannot be made from corpus, device and its options ({error}); see "
            "s2f_rl.rewards.Reward"
        ) from error
    return make  # type: ignore[no-any-return]


def reward_in(path: str | Path, corpus: Corpus, device: str | torch.device = "cpu") -> AnyReward | Reward:
    """What a folder or file holds: a reward model, a judge, or a density of lips with the phones of ``corpus``.

    For scoring; what is trained against is built by :func:`build_part`. Raises UserError.
    """
    if is_articulation(path):
        return ArticulationReward(corpus, device, folder=str(path), form="likelihood")
    return load_scorer(path, device)


def build_part(
    kind: str,
    options: Mapping[str, object],
    corpus: Corpus,
    device: str | torch.device = "cpu",
    cache_folder: str | Path | None = None,
    place: str = "reward.parts",
) -> Reward:
    """A reward of a kind, for a corpus.

    ``kind.from_options(corpus, device, **options)`` is called, or ``kind(corpus, device, **options)`` where it has no
    such method; ``cache_folder`` (for what takes long to prepare) is handed to those that take it.

    Raises:
        UserError: see :func:`part_maker`; what is made is no :class:`~s2f_rl.rewards.contract.Reward`.
    """
    make = part_maker(kind, options, place)
    more = {CACHE: cache_folder} if CACHE in inspect.signature(make).parameters and CACHE not in options else {}
    made = make(corpus, device, **options, **more)
    if not isinstance(made, Reward):
        raise UserError(f"{place}.kind={kind}: {type(made).__name__} is no reward; see s2f_rl.rewards.Reward")
    if not getattr(made, "score_names", None):
        raise UserError(f"{place}.kind={kind}: names no scores; give it score_names")
    return made
