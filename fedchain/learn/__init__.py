"""Training on one peer's own data: tasks, local training, baselines and uneven splits. Knows torch, and no chain."""

from .baselines import alone, centralised, passes_of, pooled
from .fitting import Machine
from .loading import load_task, local_data_of
from .pretrained import read_start
from .private import PrivateGradient, private_gradient
from .task import Examples, LocalData, Task
from .training import TrainResult, evaluate, fine_tune, first_model, genesis, train_locally

__all__ = [
    "Examples",
    "LocalData",
    "Machine",
    "PrivateGradient",
    "Task",
    "TrainResult",
    "alone",
    "centralised",
    "evaluate",
    "fine_tune",
    "first_model",
    "genesis",
    "load_task",
    "local_data_of",
    "passes_of",
    "pooled",
    "private_gradient",
    "read_start",
    "train_locally",
]
