#!/usr/bin/env bash
# torch: antialiased interpolation of contiguous floats to one column gives all rows the first one's
# value.
#
# F.interpolate(x, size=(2, 1), mode="bilinear" or "bicubic", antialias=True) on the CPU changes the height
# and the width of an image. Each row of the result should be the mean of its own rows of x, as it is in
# two steps (first the height, then the width), as torch itself gives for the same numbers in channels
# last or as uint8, and as Pillow does. For contiguous float32 and float64 every row is the first one.
# Other widths than 1, and heights that stay, are right. Lucid gives each row its own value.
#
# Seen with torch 2.14.1, Python 3.11:
# bilinear contiguous [6.79, 6.79], channels last [6.79, 16.21], in two steps [6.79, 16.21]
# bicubic  contiguous [6.02, 6.02], channels last [6.02, 16.98], in two steps [6.02, 16.98]
#
# Exit status 0: still so. 1: it has changed, and tests may compare with torch at one column.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
from functools import partial

import torch
from torch.nn.functional import interpolate

image = torch.arange(24.0).reshape(1, 1, 4, 6)
wrong = []
for mode in ("bilinear", "bicubic"):
    to = partial(interpolate, mode=mode, antialias=True)
    found = to(image, size=(2, 1)).flatten()
    colours = image.repeat(1, 3, 1, 1).contiguous(memory_format=torch.channels_last)
    last = to(colours, size=(2, 1))[0, 0].flatten()
    steps = to(to(image, size=(2, 6)), size=(2, 1)).flatten()
    told = [[round(v, 2) for v in values.tolist()] for values in (found, last, steps)]
    print(f"{mode} contiguous {told[0]}, channels last {told[1]}, in two steps {told[2]}")
    assert torch.allclose(last, steps)
    wrong.append(torch.equal(found[0], found[1]) and not torch.allclose(found, steps))
raise SystemExit(not all(wrong))
PYTHON
