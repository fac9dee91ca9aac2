#!/usr/bin/env bash
# torch: whether interpolation by a scale to the size that there is moves samples depends on mode, rank
# and on who computes it.
#
# F.interpolate(x, scale_factor=1.1) of 7 x 9 gives 7 x 9. The documentation says that coordinates follow
# the given scale. In eager mode "nearest" of images and all linear modes return x as it is; "nearest-exact",
# "bicubic", and "nearest" of lines and volumes sample by the scale. torch.compile decomposes the first
# two into arithmetic that follows the scale, so that a compiled module gives other numbers than the
# module. Lucid gives those of eager mode.
#
# Seen with torch 2.13.0, Python 3.11 (x as it is: same; else: moved):
# eager     nearest: same, nearest-exact: moved, bilinear: same, bicubic: moved
# eager     nearest of lines: moved, linear: same, nearest of volumes: moved, trilinear: same
# compiled  nearest: moved, bilinear: moved
#
# Exit status 0: still so. 1: it has changed, and what Lucid does about it may go.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch.nn.functional import interpolate

image = torch.arange(63.0).reshape(1, 1, 7, 9)
line, volume = image[:, :, 0], image[0, 0].expand(9, 7, 9).reshape(1, 1, 9, 7, 9)
seen = {}


def see(name, x, mode, run=interpolate):
    y = run(x, scale_factor=1.1, mode=mode)
    assert y.shape == x.shape, (name, y.shape)
    seen[name] = "same" if torch.equal(y, x) else "moved"
    print(f"{name}: {seen[name]}")


for mode in ("nearest", "nearest-exact", "bilinear", "bicubic"):
    see(mode, image, mode)
see("nearest of lines", line, "nearest")
see("linear", line, "linear")
see("nearest of volumes", volume, "nearest")
see("trilinear", volume, "trilinear")
compiled = torch.compile(interpolate, backend="aot_eager_decomp_partition")
see("compiled nearest", image, "nearest", compiled)
see("compiled bilinear", image, "bilinear", compiled)
same = {name for name, what in seen.items() if what == "same"}
raise SystemExit(same != {"nearest", "bilinear", "linear", "trilinear"})
PYTHON
