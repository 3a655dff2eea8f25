"""Where the prior of a model begins that is fitted to its codes."""

import torch
from torch import Tensor

from vaelab.data import Batches, ImageData, Images, rows_at_once
from vaelab.losses import Objective, PriorLikelihood
from vaelab.metrics.subject import split_images
from vaelab.models.autoencoder import Autoencoder
from vaelab.seeding import derive_seed


@torch.no_grad()
def start_prior(model: Autoencoder, objective: Objective, data: ImageData, *, seed: int) -> None:
    """Have the prior begin at the codes of the training images and, held out, of the validation images.

    Where there are no validation images, held out is every tenth training image. A function of the weights, the data
    and the seed. Does nothing where the prior is not fitted to codes.
    """
    if not isinstance(objective, PriorLikelihood) or model.space == "codes":
        return
    assert model.prior is not None
    training = model.training
    model.eval()
    torch.manual_seed(derive_seed(seed, "codes"))
    codes = _codes(model, objective, split_images(data, "train"))
    if len(data.splits.validation):
        held_out = _codes(model, objective, data.splits.validation)
    else:
        every_tenth = torch.arange(len(codes)) % 10 == 0
        codes, held_out = codes[~every_tenth], codes[every_tenth]
    torch.manual_seed(derive_seed(seed, "start of the prior"))
    model.prior.start(codes, held_out)
    model.train(training)


def too_few(model: Autoencoder, objective: Objective, images: int) -> str | None:
    """Why so many training images are too few for the prior; None where they are enough."""
    if not isinstance(objective, PriorLikelihood) or model.prior is None or images >= model.prior.fewest_codes:
        return None
    return f"the prior needs {model.prior.fewest_codes:,} codes to begin at, and there are {images:,} training images"


def _codes(model: Autoencoder, objective: PriorLikelihood, images: Images) -> Tensor:
    batches = Batches(images, batch_size=rows_at_once(images.shape), device=torch.device("cpu"))
    return torch.cat([objective.z(model.encode(batch.images, batch.labels)) for batch in batches])
