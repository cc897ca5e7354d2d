"""Upper-face dynamics deviation."""

from __future__ import annotations

from torch import Tensor

from s2f_rl.metrics._meshes import ArrayLike, Indices, as_indices, as_pair, as_template, select


def _dynamics(frames: Tensor, template: Tensor, upper: Tensor) -> Tensor:
    squared_norm = (select(frames, upper) - select(template, upper)).square().sum(-1)
    deviation = squared_norm - squared_norm.mean(-2, keepdim=True)
    return deviation.square().mean(-2).sqrt().mean(-1)


def upper_face_dynamics_deviation(
    prediction: ArrayLike, truth: ArrayLike, template: ArrayLike, upper: Indices
) -> Tensor:
    """FDD: how much less the upper face moves than in the ground truth.

    CodeTalker (Xing et al., CVPR 2023): per upper-face vertex the population standard deviation over time of the
    squared norm of its displacement from the template, averaged over the vertices; truth minus prediction. Signed:
    positive when the prediction moves too little, so take the absolute value per sequence before averaging when
    faces that move too much should not make up for frozen ones.

    Args:
        prediction, truth: [.., T, V*3] or [.., T, V, 3], metres, same number of frames.
        template: neutral face [V*3] or [V, 3], or one per sequence of the batch.
        upper: indices of the upper-face vertices, or a boolean mask [V].

    Returns:
        float64 [..] in squared metres, any sign, 0 is best; nan for T = 0.

    Raises:
        UserError: shapes that do not fit, or indices outside the mesh.
    """
    prediction, truth = as_pair(prediction, truth)
    neutral = as_template(template, prediction)
    indices = as_indices(upper, prediction, "upper")
    return _dynamics(truth, neutral, indices) - _dynamics(prediction, neutral, indices)
