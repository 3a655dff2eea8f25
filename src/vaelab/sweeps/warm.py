"""Imported by the process that jobs are forked from: what every run imports or looks up once, so that none has to.

It must not start threads, which a fork would not copy.
"""

import gc
from contextlib import suppress
from importlib import import_module
from typing import Any

import matplotlib.backends.backend_agg  # noqa: F401
import PIL.Image
import torch.utils.tensorboard  # noqa: F401
from omegaconf import OmegaConf

import vaelab.sweeps.job  # noqa: F401
from vaelab.config.compose import compose
from vaelab.config.experiment import Experiment
from vaelab.config.parts import Maker

for name in ("sklearn.datasets", "mlxtend.data", "pandas"):  # what reads data
    with suppress(ImportError):
        import_module(name)
PIL.Image.preinit()
_config: Any = OmegaConf.to_container(compose())
Maker(()).arguments("", Experiment, _config)  # conf/, and the types of the parts' knobs
gc.freeze()  # so that a job's collections do not copy pages
