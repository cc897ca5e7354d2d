from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from s2f_rl.data.mesh_files import read_obj
from s2f_rl.errors import UserError
from s2f_rl.exchange.face import Face
from s2f_rl.exchange.obj import write_obj_sequence
from tests.render.shapes import ball


def test_a_sequence(tmp_path: Path) -> None:
    points, triangles = ball()
    motion = points * np.linspace(1, 1.2, 3)[:, None, None]
    colours = np.full((len(points), 3), 255, np.uint8)
    write_obj_sequence(tmp_path / "take", motion, 25.0, Face(triangles, colours))
    assert [path.name for path in sorted((tmp_path / "take").iterdir())] == [f"take_000{t}.obj" for t in range(3)]
    for t, frame in enumerate(motion):
        vertices, read = read_obj(tmp_path / "take" / f"take_000{t}.obj")
        np.testing.assert_allclose(vertices, frame, atol=6e-8)
        np.testing.assert_array_equal(read, triangles)
    lines = (tmp_path / "take" / "take_0002.obj").read_text().splitlines()
    assert lines[0] == "# metres, y up; frame 2 at 0.080000 s of 25 frames per second"
    assert lines[1].split()[4:] == ["1.0000"] * 3
    with pytest.raises(UserError, match="take: is not empty"):
        write_obj_sequence(tmp_path / "take", motion, 25.0, Face(triangles))


def test_half_a_sequence_is_none(tmp_path: Path) -> None:
    points, triangles = ball()

    class Broken:
        shape = (2, len(points), 3)

        def __len__(self) -> int:
            return 2

        def __iter__(self):  # type: ignore[no-untyped-def]
            yield points
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="take: cannot be written .No space"):
        write_obj_sequence(tmp_path / "take", Broken(), 25.0, Face(triangles))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
