"""Makes body.safetensors, which this federation begins with: `python pretrain.py FOLDER` (README.md says which folder).

A small convolutional network learns MNIST's 60,000 digits, scaled to the 8 × 8 pixels of the task's own. Its last layer
is left out: what is passed on is how to look at strokes, and the members learn what the digits are.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional
from torch.utils.data import TensorDataset

from fedchain.errors import UsageError
from fedchain.learn import LocalData, evaluate, genesis, load_task, train_locally
from fedchain.learn.idx import read_images
from fedchain.protocol.charter import Algorithm
from fedchain.protocol.model import assemble, flatten, layout_of, split

HERE = Path(__file__).parent
LAST = "8."
"""The last layer's tensors begin with this."""


def shrunk(images: NDArray[np.uint8]) -> Tensor:
    """(k, 1, 8, 8) float32, 0 to 1: the 20 × 20 pixels that a digit is drawn in, black or white, averaged."""
    strokes = torch.from_numpy(images[:, None, 4:24, 4:24] > 102).float()
    return functional.adaptive_avg_pool2d(strokes, 8)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        images = read_images(Path(sys.argv[1]))
    except UsageError as error:
        sys.exit(f"error: {error}")
    file = HERE / "task.py"
    task = load_task(file, hashlib.sha256(file.read_bytes()).hexdigest())
    train, test = (
        TensorDataset(shrunk(pixels), torch.from_numpy(labels)) for pixels, labels in (images.train, images.test)
    )
    base = genesis(task, 0)
    algorithm = Algorithm(local_epochs=3, batch_size=64)
    update = train_locally(task, base, algorithm, LocalData(train, test), seed=0).update
    model = assemble(layout_of(base), flatten(base) + update)
    print(f"accuracy on MNIST's test digits, 8 by 8: {evaluate(task, model, test)['accuracy']:.4f}")
    tensors = split(layout_of(model), flatten(model))
    body = save({k: torch.from_numpy(v.copy()).half() for k, v in tensors.items() if not k.startswith(LAST)})
    (HERE / "body.safetensors").write_bytes(body)
    print(f"body.safetensors: {len(body)} bytes, SHA-256 {hashlib.sha256(body).hexdigest()}")


if __name__ == "__main__":
    main()
