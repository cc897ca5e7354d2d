"""Keys of ``recipes/codebook.py``."""

from __future__ import annotations

from dataclasses import dataclass

from s2f_rl.errors import UserError
from s2f_rl.runs.schema import Count, NonNegative, Size, key
from s2f_rl.schemas.reward import HeadOptimizer, Scoring
from s2f_rl.schemas.shared import Run


@dataclass
class CodebookModel:
    """Group ``codebook_model``."""

    width: Size = key("W, of encoder and decoder")
    hidden: Size = key("of their MLPs")
    n_layers: Size = key("transformer blocks of each")
    n_head: Size = key("their attention heads")
    n_codes: Size = key("K, of the codebook")
    code_width: Size = key("C, numbers of a code")
    codes_per_frame: Size = key("Q, each one of the K")
    mapped: bool = key("linear maps between W and Q*C, as published for BIWI; else both are equal")

    def rules(self) -> None:
        size = self.codes_per_frame * self.code_width
        if not self.mapped and self.width != size:
            raise UserError(
                f"codebook_model.width={self.width}: {self.codes_per_frame} codes of {self.code_width} numbers make "
                f"{size}; give that width, or codebook_model.mapped=true"
            )
        if self.width % self.n_head or self.width % 2:
            raise UserError(
                f"codebook_model.n_head={self.n_head}: must divide codebook_model.width={self.width}, and 2 too"
            )


@dataclass
class CodebookRun(Run):
    """``codebook``."""

    codebook_model: CodebookModel = key("sizes")
    iterations: Count = key("updates")
    batch_size: Size = key("utterances per update")
    lip_weight: NonNegative = key("a lip coordinate counts 1 + lip_weight times another")
    quantisation_weight: NonNegative = key("of the quantiser's loss, beside 1 of the reconstruction's")
    redraw_after: Count | None = key("updates without being chosen after which a code is placed anew; null: never")
    optimizer: HeadOptimizer = key("AdamW")
    evaluation: Scoring = key("on validation speakers")
