"""Teach the phone recogniser that comes with the package, on synthetic speech of many voices: needs no corpus.

    python recipes/listener.py
    python recipes/listener.py utterances=2000 iterations=200

Writes recogniser.safetensors and recogniser.json (how it was made, and what it hears of voices and texts that it never
met) into the run folder; `actor.audio.pretrained=FOLDER` uses it.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import shlex
import sys
import time

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from s2f_rl.data.synthetic.phones import BILABIALS, PHONES, SILENCE
from s2f_rl.data.synthetic.pretraining import HELD_OUT_VARIANTS, pretraining_voices
from s2f_rl.models.recogniser import PhoneRecogniser
from s2f_rl.models.recogniser_files import save_recogniser
from s2f_rl.provenance import package_versions
from s2f_rl.runs import Progress, RunFolder, TrainingState, make_logger, pick_device, recipe_main, seed_everything
from s2f_rl.schemas.listener import ListenerRun
from s2f_rl.training import StepGuard, cosine_decay
from s2f_rl.training.spoken import Spoken, SpokenBatches, speak_for, unheard

OFFSETS = (0, -5, 5, -10, 10)
"""Frames at 50 Hz from the one heard to the one whose phone is told; only the first head is kept."""


@recipe_main("listener", ListenerRun)
def main(cfg: DictConfig) -> dict[str, float]:
    seed_everything(cfg.seed)
    device = pick_device(cfg.device)
    recogniser = PhoneRecogniser(len(PHONES), **cfg.recogniser)
    with pretraining_voices(cfg.invented_voices, np.random.default_rng(cfg.seed)) as voices:
        spoken = speak_for(recogniser, voices, cfg.utterances, cfg.seed, cfg.progress)
    batches, tests = SpokenBatches(spoken, cfg.batch_size, cfg.batch_frames), unheard(recogniser)

    # of the neighbours' phones as well, so that what is heard reaches further than the frame itself
    recogniser = recogniser.to(device)
    neighbours = nn.Linear(cfg.recogniser.width, len(PHONES) * (len(OFFSETS) - 1)).to(device)
    trained = [*recogniser.parameters(), *neighbours.parameters()]
    optimizer = torch.optim.AdamW([{"params": trained, "lr_factor": 1.0}], weight_decay=cfg.optimizer.weight_decay)
    draws = torch.Generator().manual_seed(cfg.seed)
    guard = StepGuard()
    state = TrainingState(recogniser=recogniser, neighbours=neighbours, optimizer=optimizer, draws=draws, guard=guard)

    with RunFolder(cfg.name, root=cfg.root, config=cfg, resume=cfg.resume) as folder:
        if folder.resuming:
            state.load_state_dict(folder.load_checkpoint("last.pt"))
            folder.rows.cut_after(state.iteration)
        logger = folder.rows.feed(make_logger(cfg.logger, folder.path, cfg.name, cfg, cfg.logger_online))
        progress = Progress(cfg.iterations, state.iteration, cfg.progress, cfg.name)
        values: dict[str, float] = {}

        for iteration in range(state.iteration + 1, cfg.iterations + 1):
            state.iteration = iteration
            # 1 draw pieces of speech
            started = time.perf_counter()
            bands, phones = (each.to(device) for each in batches.draw(draws))
            state.frames += phones.numel()

            # 2 tell the phone of each frame and of its neighbours
            hidden = recogniser.hidden(bands)
            own = phone_loss(recogniser.phones(hidden), phones)
            heads = neighbours(hidden).unflatten(-1, (len(OFFSETS) - 1, len(PHONES)))
            others = [phone_loss(heads[:, :, k], phones, offset) for k, offset in enumerate(OFFSETS[1:])]
            loss = own + cfg.neighbours * torch.stack(others).mean()

            # 3 update
            optimizer.param_groups[0]["lr_factor"] = min(1.0, state.iteration / max(1, cfg.optimizer.warmup))
            lr = cosine_decay(optimizer, cfg.optimizer, state.iteration, cfg.iterations)
            norm = guard.step(loss, optimizer, cfg.optimizer.max_grad_norm)

            # 4 log
            row = {"loss": float(loss.detach()), "loss_phone": float(own.detach()), "grad_norm": float(norm), "lr": lr}
            row |= {"skipped_steps": guard.skipped(), "time/iteration_s": time.perf_counter() - started}
            progress.update(phones.numel(), {"loss": row["loss"]})

            # 5 measure on unheard voices and texts, and save
            due = state.iteration % cfg.evaluation.every == 0 or state.iteration == cfg.iterations
            if due:
                values = accuracy(recogniser, tests, device)
                row |= {f"validation/{k}": v for k, v in values.items()}
            folder.rows.append(row, state.iteration, state.frames)
            if due or (folder.checkpoint_due(cfg.checkpoint_minutes) and not guard.in_row):
                folder.save_checkpoint("last.pt", state.state_dict())
        progress.close()
        logger.close()
        save_recogniser(folder.path, recogniser, {
            "command": shlex.join(["python", *(each for each in sys.argv if not each.startswith("hydra"))]),
            "seed": cfg.seed, "versions": package_versions(), "voices": len(voices.names),
            "held_out_variants": sorted(HELD_OUT_VARIANTS), "unheard": values or accuracy(recogniser, tests, device),
        })  # fmt: skip
    return values


def phone_loss(logits: Tensor, phones: Tensor, offset: int = 0) -> Tensor:
    """Cross-entropy of logits [B, L, P] against the phones ``offset`` frames later, where there are any."""
    n = phones.shape[1]
    told, meant = logits[:, max(0, -offset) : n - max(0, offset)], phones[:, max(0, offset) : n + min(0, offset)]
    return cross_entropy(told.flatten(0, 1), meant.flatten())


@torch.no_grad()
def accuracy(recogniser: PhoneRecogniser, tests: list[Spoken], device: torch.device) -> dict[str, float]:
    """Share of frames whose likeliest phone is right: of all, of speech, and of /m b p/; and the cross-entropy."""
    logits = torch.cat([recogniser(each.bands.float()[None].to(device))[0].cpu() for each in tests])
    phones = torch.cat([each.phones for each in tests]).long()
    right = logits.argmax(-1) == phones
    closed = torch.isin(phones, torch.tensor([PHONES.index(name) for name in BILABIALS]))
    return {
        "accuracy": float(right.float().mean()),
        "accuracy_speech": float(right[phones != PHONES.index(SILENCE)].float().mean()),
        "accuracy_bilabial": float(right[closed].float().mean()),
        "cross_entropy": float(cross_entropy(logits, phones)),
    }


if __name__ == "__main__":
    main()
