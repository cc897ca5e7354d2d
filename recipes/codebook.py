"""Stage 1 of CodeTalker (Xing et al., CVPR 2023): a codebook of motion, from the recorded faces of a corpus alone.

    python recipes/codebook.py corpus.root=data/demo
    python recipes/codebook.py corpus.root=data/vocaset codebook_model=vocaset

Writes codebook.pt into the run folder, for `recipes/supervised.py actor=codetalker actor.codebook=FOLDER`; codes.json
(how often each code is chosen) and, with a page that has faces, codes.png (what some of them do to one).

Loss: L1 of the reconstruction and that of the quantiser, of motion whose root mean square is 1.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import copy
import logging
import time

import torch
from omegaconf import DictConfig

from s2f_rl.data import FaceCorpus
from s2f_rl.data.contract import place_of
from s2f_rl.data.files import atomic_write_json
from s2f_rl.errors import UserError
from s2f_rl.losses import lip_vertex_weight
from s2f_rl.models.codetalker.code_use import DeadCodes, counts_of
from s2f_rl.models.codetalker.codebook import Codebook, perplexity
from s2f_rl.models.codetalker.codebook_files import TrainedCodebook
from s2f_rl.provenance import package_versions, source_commit
from s2f_rl.rewards.calibration.auc import spread_evenly
from s2f_rl.runs import Progress, RunFolder, TrainingState, make_logger, pick_device, recipe_main, seed_everything
from s2f_rl.schemas.codebook import CodebookRun
from s2f_rl.training import StepGuard, cosine_decay, open_corpora
from s2f_rl.training.codes import Motions, describe, distances_mm, draw_codes

logger = logging.getLogger(__name__)


@recipe_main("codebook", CodebookRun)
def main(cfg: DictConfig) -> dict[str, float]:
    seed_everything(cfg.seed)
    device = pick_device(cfg.device)
    train, validation = open_corpora(cfg.corpus.root, cfg.corpus.topology)
    known, unseen = Motions(train), Motions(validation)
    scored = spread_evenly(len(unseen), cfg.evaluation.utterances)
    lips = torch.as_tensor(train.regions["lips"]).long().flatten().to(device)
    weight = lip_vertex_weight(train, cfg.lip_weight)
    weight = None if weight is None else weight.to(device)

    # the codebook, of motion in units of its own size: in metres, its first weights would move a face by half of one
    unit = known.size()
    codebook = Codebook(3 * train.n_vertices, **cfg.codebook_model).to(device)
    groups = [{"params": list(codebook.parameters()), "lr_factor": 1.0}]
    optimizer = torch.optim.AdamW(groups, weight_decay=cfg.optimizer.weight_decay)
    dead = DeadCodes(codebook, cfg.redraw_after, cfg.seed)
    draws = torch.Generator().manual_seed(cfg.seed)
    guard = StepGuard()
    state = TrainingState(codebook=codebook, optimizer=optimizer, dead=dead, draws=draws, guard=guard)
    about = {"corpus": place_of(train), "utterances": len(known), "seed": cfg.seed}
    about |= {"commit": source_commit(), "versions": package_versions()}

    with RunFolder(cfg.name, root=cfg.root, config=cfg, resume=cfg.resume) as folder:
        if folder.resuming:
            state.load_state_dict(folder.load_checkpoint("last.pt"))
            folder.rows.cut_after(state.iteration)
        loggers = folder.rows.feed(make_logger(cfg.logger, folder.path, cfg.name, cfg, cfg.logger_online))
        progress = Progress(cfg.iterations, state.iteration, cfg.progress, cfg.name)
        values: dict[str, float] = {}

        for iteration in range(state.iteration + 1, cfg.iterations + 1):
            state.iteration = iteration
            # 1 draw utterances
            clock = time.perf_counter()
            picks = torch.randint(len(known), (cfg.batch_size,), generator=draws).tolist()
            motions = [known[k].to(device) / unit for k in picks]
            n_frames = sum(motion.shape[1] for motion in motions)
            state.frames += n_frames

            # 2 through the codebook one by one: padding would enter the norm over time
            batch = [codebook(motion, shared_row=True) for motion in motions]
            errors = [codebook.errors(passed, motion, weight) for passed, motion in zip(batch, motions, strict=True)]
            reconstruction, quantisation = (torch.stack(each).mean() for each in zip(*errors, strict=True))
            loss = reconstruction + cfg.quantisation_weight * quantisation

            # 3 update, and put codes that are never chosen elsewhere
            optimizer.param_groups[0]["lr_factor"] = min(1.0, iteration / max(1, cfg.optimizer.warmup))
            lr = cosine_decay(optimizer, cfg.optimizer, iteration, cfg.iterations)
            norm = guard.step(loss, optimizer, cfg.optimizer.max_grad_norm)
            redrawn = dead.update(batch, optimizer)

            # 4 log
            counts = counts_of(batch, codebook.n_codes)
            apart = [distances_mm(p.displacement, m, unit, lips) for p, m in zip(batch, motions, strict=True)]
            row = {name: float(torch.stack([each[name] for each in apart]).mean()) for name in apart[0]}
            row |= {"loss": float(loss.detach()), "quantisation": float(quantisation.detach()), "lr": lr}
            row |= {"perplexity": float(perplexity(counts)), "codes_used": float((counts > 0).float().mean())}
            row |= {"codes_redrawn": redrawn, "grad_norm": float(norm), "skipped_steps": guard.skipped()}
            row["time/iteration_s"] = time.perf_counter() - clock
            progress.update(n_frames, {"loss": row["loss"]})

            # 5 measure on the validation speakers and save
            due = iteration % cfg.evaluation.every == 0 or iteration == cfg.iterations
            if due:
                values, used = describe(codebook, unseen, scored, unit, lips)
                row |= {f"validation/{name}": value for name, value in values.items()}
                if state.best is None or -values["lips_mm"] > state.best:
                    state.best = -values["lips_mm"]
                    found = about | {"iteration": iteration, "validation": values}
                    in_metres = copy.deepcopy(codebook).to_metres(unit)
                    TrainedCodebook(in_metres, train.fps, train.mesh_identity, found).save(folder.path)
                    atomic_write_json(folder.path / "codes.json", {"chosen": used.long().tolist()})
            folder.rows.append(row, iteration, state.frames)
            if due or (folder.checkpoint_due(cfg.checkpoint_minutes) and not guard.in_row):
                folder.save_checkpoint("last.pt", state.state_dict())
        progress.close()
        loggers.close()
        finish(cfg, folder, validation, unseen, scored)
    return values


def finish(cfg: DictConfig, folder: RunFolder, validation: FaceCorpus, unseen: Motions, scored: list[int]) -> None:
    """A picture of the best codebook's codes, and a line on it."""
    best = TrainedCodebook.load(folder.path).codebook
    values, used = describe(best, unseen, scored, 1.0, torch.as_tensor(validation.regions["lips"]).flatten())
    if cfg.page in ("stills", "films"):
        try:
            draw_codes(best, validation, used, folder.path / "codes.png")
        except UserError as error:  # without the extra that draws
            logger.warning("codes.png: not drawn (%s)", error)
    if cfg.progress:
        told = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        print(f"{folder.path / 'codebook.pt'}: validation: {told}")


if __name__ == "__main__":
    main()
