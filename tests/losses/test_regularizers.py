"""Each regularizer against a closed form, numpy, autograd's own Jacobian, or the whole dataset at once."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

import vaelab
from vaelab.config.check import check
from vaelab.losses import Reconstruction, Regularized
from vaelab.losses.corruptions import Masking
from vaelab.losses.regularizers import (
    DIP,
    KL,
    MMD,
    CodeNorm,
    DecoderJacobian,
    DecoderNorm,
    EncoderJacobian,
    Sparsity,
    TotalCorrelation,
    jacobian_norm,
    mmd,
    total_correlation,
)
from vaelab.losses.schedules import Linear
from vaelab.models.autoencoder import Autoencoder
from vaelab.models.distributions import Delta
from vaelab.models.likelihoods import Bernoulli
from vaelab.models.likelihoods import Gaussian as GaussianLikelihood
from vaelab.models.networks import MLPDecoder, MLPEncoder
from vaelab.models.posteriors import Deterministic, Gaussian
from vaelab.models.priors import StandardNormal

SHAPE, LATENT = (1, 3, 4), 3


def model_of(posterior=Gaussian, *, prior=True, activation=None):
    torch.manual_seed(0)
    encoder = MLPEncoder(SHAPE, hidden=[7], activation="tanh")
    knobs = {} if activation is None else {"activation": activation}
    return Autoencoder(
        encoder=encoder,
        posterior=posterior(encoder.features, LATENT, **knobs),
        decoder=MLPDecoder(LATENT, SHAPE, hidden=[7], activation="tanh"),
        likelihood=GaussianLikelihood(SHAPE, scale=0.5),
        prior=StandardNormal(LATENT) if prior else None,
    ).double()


@pytest.fixture
def model():
    return model_of()


@pytest.fixture
def images():
    return torch.rand(9, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def penalty(regularizer, model, x, step=math.inf):
    torch.manual_seed(0)
    q = model.encode(x)
    return regularizer(model, x, q, q.rsample(), step)


def posteriors(n, size, seed=0):
    """N independent Gaussians that overlap, as one distribution."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(n, size, generator=generator, dtype=torch.float64)
    mean[:, 1] += mean[:, 0]  # so that there is something to measure
    scale = 0.5 + torch.rand(n, size, generator=generator, dtype=torch.float64)
    return Independent(Normal(mean, scale), 1)


def aggregated(q, z):
    """log q(z) and sum_j log q(z_j) of q(z) = 1/N sum_n q(z|x_n), one number at a time."""
    mean, scale = q.base_dist.loc, q.base_dist.scale
    values = []
    for point in z:
        joint, marginals = 0.0, [0.0] * z.shape[1]
        for n in range(len(mean)):
            densities = [
                math.exp(-(((point[j] - mean[n, j]) / scale[n, j]) ** 2) / 2) / (scale[n, j] * math.sqrt(2 * math.pi))
                for j in range(z.shape[1])
            ]
            joint += math.prod(densities) / len(mean)
            marginals = [total + density / len(mean) for total, density in zip(marginals, densities, strict=True)]
        values.append(math.log(joint) - sum(map(math.log, marginals)))
    return sum(values) / len(values)


class TestTotalCorrelation:
    def test_with_the_whole_dataset_in_the_batch_it_is_exact(self):
        q = posteriors(12, 3)
        z = q.sample()
        torch.testing.assert_close(total_correlation(q, z).item(), aggregated(q, z))
        torch.testing.assert_close(total_correlation(q, z, images=12).item(), aggregated(q, z))

    def test_over_all_batches_the_density_that_it_estimates_has_the_mean_that_it_should(self):
        """Every batch of 3 of 6 images that has image 0 in it: the mean of the estimates of q(z_0) is q(z_0)."""
        q = posteriors(6, 2)
        z = q.sample()
        exact = q.log_prob(z[:1].expand(6, -1)).exp().mean()
        estimates = []
        for others in itertools.combinations(range(1, 6), 2):
            chosen = torch.tensor([0, *others])
            own, rest = q.log_prob(z[:1].expand(6, -1)).exp()[chosen].split([1, 2])
            estimates.append(own.sum() / 6 + rest.sum() * (1 - 1 / 6) / 2)
        torch.testing.assert_close(torch.stack(estimates).mean(), exact)

    def test_the_diagonal_has_the_weight_of_an_image_in_its_dataset(self):
        """Where posteriors do not overlap only an image's own is left: TC = log w - Z log w with w on the diagonal."""
        mean = torch.arange(5, dtype=torch.float64)[:, None].expand(5, 3) * 1e4
        q = Independent(Normal(mean, torch.ones_like(mean)), 1)
        images = 400
        expected = -2 * math.log(1 / images)
        torch.testing.assert_close(total_correlation(q, q.sample(), images=images).item(), expected)
        weighted = total_correlation(q, q.sample(), images=images, estimator="weighted").item()
        torch.testing.assert_close(weighted, -2 * math.log(1 / (images * 5)))

    @pytest.mark.parametrize("estimator", ["stratified", "weighted"])
    def test_in_a_batch_of_a_larger_dataset_it_is_the_sum_of_its_weights_one_by_one(self, estimator):
        q, images, batch = posteriors(5, 3), 40, 5
        z = q.sample()
        total = 0.0
        for i in range(batch):
            weights = [1 / images if i == n else (1 - 1 / images) / (batch - 1) for n in range(batch)]
            if estimator == "weighted":
                weights = [1 / (images * batch)] * batch
            densities = q.base_dist.log_prob(z[i]).exp().tolist()  # [n][j]
            joint = sum(w * math.prod(row) for w, row in zip(weights, densities, strict=True))
            marginals = [sum(w * row[j] for w, row in zip(weights, densities, strict=True)) for j in range(3)]
            total += (math.log(joint) - sum(map(math.log, marginals))) / batch
        torch.testing.assert_close(total_correlation(q, z, images=images, estimator=estimator).item(), total)

    def test_minibatch_weighted_sampling_differs_from_it_by_its_constant_for_a_whole_dataset(self):
        q = posteriors(8, 3)
        z = q.sample()
        weighted = total_correlation(q, z, estimator="weighted").item()
        torch.testing.assert_close(weighted, aggregated(q, z) + (3 - 1) * math.log(8))

    def test_it_is_that_of_a_gaussian_where_q_z_is_one(self):
        """Means on N(0, C) and narrow posteriors: TC = -1/2 log det of the correlations, here within its noise."""
        n, rho = 3000, 0.8
        torch.manual_seed(0)
        covariance = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)
        mean = MultivariateNormal(torch.zeros(2, dtype=torch.float64), 0.99 * covariance).sample((n,))
        q = Independent(Normal(mean, torch.full_like(mean, 0.1)), 1)
        estimate = total_correlation(q, q.sample()).item()
        assert estimate == pytest.approx(-0.5 * math.log(1 - (0.99 * rho) ** 2), abs=0.06)

    def test_one_dimension_and_one_image_have_none(self):
        q = posteriors(5, 2)
        one = Independent(Normal(q.base_dist.loc[:, :1], q.base_dist.scale[:, :1]), 1)
        torch.testing.assert_close(total_correlation(one, one.sample()).item(), 0.0)
        alone = Independent(Normal(q.base_dist.loc[:1], q.base_dist.scale[:1]), 1)
        torch.testing.assert_close(total_correlation(alone, alone.sample(), images=70).item(), 0.0)

    def test_it_takes_the_size_of_the_dataset_in_training_and_the_batch_in_evaluation(self, model, images):
        part = TotalCorrelation()
        part.drawn_from(1000)
        q = model.encode(images)
        z = q.sample()
        torch.testing.assert_close(part(model, images, q, z, 3), total_correlation(q, z, images=1000))
        torch.testing.assert_close(part(model, images, q, z, math.inf), total_correlation(q, z))


class TestMMD:
    @pytest.mark.parametrize("kernel", ["imq", "rbf"])
    def test_equal_samples_have_none(self, kernel):
        a = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        assert mmd(a, a.flip(0), kernel=kernel, scales=[0.5, 2.0], unbiased=False).item() == pytest.approx(0, abs=1e-14)

    @pytest.mark.parametrize("kernel", ["rbf", "imq"])
    @pytest.mark.parametrize("shift", [0.0, 0.7])
    def test_between_gaussians_it_is_the_closed_form_within_its_standard_error(self, shift, kernel):
        """E exp(-d^2 / c) = (c / (c + 2 s))^(Z/2) exp(-|m|^2 / (c + 2 s)) for d ~ N(m, s I), s the sum of variances.

        And c / (c + d^2) is the integral over t > 0 of exp(-t) exp(-t d^2 / c).
        """
        size, scale, variance, n = 3, 0.8, 0.49, 200
        c = 2 * size * scale

        def rbf(c, of_variances, distance):
            widened = c + 2 * of_variances
            return (c / widened) ** (size / 2) * math.exp(-size * distance**2 / widened)

        def expected(of_variances, distance):
            if kernel == "rbf":
                return rbf(c, of_variances, distance)
            return quad(lambda t: math.exp(-t) * rbf(c / t, of_variances, distance), 0, math.inf)[0]

        exact = expected(2 * variance, 0) + expected(2, 0) - 2 * expected(variance + 1, shift)
        torch.manual_seed(0)
        estimates = [
            mmd(
                shift + variance**0.5 * torch.randn(n, size, dtype=torch.float64),
                torch.randn(n, size, dtype=torch.float64),
                kernel=kernel,
                scales=[scale],
            )
            for _ in range(100)
        ]
        mean, error = torch.stack(estimates).mean().item(), torch.stack(estimates).std().item() / 10
        assert abs(mean - exact) < 4 * error
        assert error < 0.1 * exact + 1e-3

    def test_the_inverse_multiquadratic_kernel_is_that_of_its_formula(self):
        generator = torch.Generator().manual_seed(0)
        a, b = torch.randn(2, 4, 2, dtype=torch.float64, generator=generator)

        def k(one, other):
            d = sum((float(p) - float(q)) ** 2 for p, q in zip(one, other, strict=True))
            return sum(2 * 2 * scale / (2 * 2 * scale + d) for scale in (0.5, 3.0))

        pairs = list(itertools.permutations(range(4), 2))
        expected = sum(k(a[i], a[j]) + k(b[i], b[j]) for i, j in pairs) / 12
        expected -= 2 * sum(k(p, q) for p in a for q in b) / 16
        assert mmd(a, b, kernel="imq", scales=[0.5, 3.0]).item() == pytest.approx(expected)

    def test_a_batch_of_one_image_is_no_error(self, model, images):
        assert penalty(MMD(), model, images[:1]).isfinite()

    def test_it_moves_codes_to_the_prior(self):
        scales = [0.1, 1.0, 10.0]
        torch.manual_seed(0)
        z = (3 + 0.1 * torch.randn(100, 2)).requires_grad_()
        prior = torch.randn(2000, 2)
        before = mmd(z.detach().repeat(20, 1), prior, kernel="imq", scales=scales, unbiased=False)
        optimizer = torch.optim.Adam([z], 0.1)
        for _ in range(100):
            optimizer.zero_grad()
            mmd(z, torch.randn(100, 2), kernel="imq", scales=scales).backward()
            optimizer.step()
        after = mmd(z.detach().repeat(20, 1), prior, kernel="imq", scales=scales, unbiased=False)
        assert after < 0.1 * before


class TestDIP:
    @pytest.mark.parametrize("which", ["means", "samples"])
    def test_it_is_that_of_numpys_covariance(self, model, images, which):
        q = model.encode(images)
        covariance = np.cov(q.mean.detach().numpy().T, bias=True)
        if which == "samples":
            covariance = covariance + np.diag(q.variance.detach().numpy().mean(0))
        off = covariance - np.diag(np.diag(covariance))
        expected = (off**2).sum() + 7 * ((np.diag(covariance) - 1) ** 2).sum()
        assert penalty(DIP(diagonal=7.0, covariance=which), model, images).item() == pytest.approx(expected)

    def test_full_covariances_count_whole(self, model, images):
        scale = torch.tensor([[1.0, 0.0], [0.5, 2.0]], dtype=torch.float64)
        q = MultivariateNormal(torch.zeros(4, 2, dtype=torch.float64), scale_tril=scale.expand(4, 2, 2))
        c = (scale @ scale.T).numpy()
        expected = 2 * c[0, 1] ** 2 + (c[0, 0] - 1) ** 2 + (c[1, 1] - 1) ** 2
        part = DIP(diagonal=1.0, covariance="samples")
        assert part(model, images, q, q.sample(), 0).item() == pytest.approx(expected)

    def test_codes_of_the_prior_are_not_pushed(self, model, images):
        z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # covariance I
        assert DIP()(model, images, Delta(z), z, 0).item() == 0


class TestJacobians:
    def exact(self, function, at):
        rows = [torch.autograd.functional.jacobian(function, one[None]).square().sum() for one in at]
        return torch.stack(rows)

    @pytest.mark.parametrize("kind", [Gaussian, Deterministic])
    def test_contraction_is_autograds_full_jacobian_within_its_standard_error(self, kind, images):
        model = model_of(kind, prior=kind is Gaussian)
        x = images[:3]
        exact = self.exact(lambda at: model.encode(at).mean, x)
        torch.manual_seed(0)
        draws = jacobian_norm(lambda at: model.encode(at).mean, x.repeat_interleave(4000, 0)).detach().view(3, -1)
        assert ((draws.mean(1) - exact).abs() < 4 * draws.std(1) / math.sqrt(4000)).all()

    def test_the_decoders_is_autograds_full_jacobian_within_its_standard_error(self, model, images):
        z = model.encode(images[:3]).mean.detach()
        exact = self.exact(lambda at: model.decode(at).mean, z)
        torch.manual_seed(0)
        draws = jacobian_norm(lambda at: model.decode(at).mean, z.repeat_interleave(4000, 0)).detach().view(3, -1)
        assert ((draws.mean(1) - exact).abs() < 4 * draws.std(1) / math.sqrt(4000)).all()

    def test_one_output_is_exact(self):
        """J is one row, and the square of a sign is 1: |J^T v|^2 = |J|^2."""
        weight = torch.tensor([3.0, 4.0])
        drawn = jacobian_norm(lambda at: (at @ weight)[:, None], torch.zeros(5, 2))
        torch.testing.assert_close(drawn, torch.full((5,), 25.0))

    def test_signs_leave_a_third_of_the_spread_of_gaussian_directions_on_the_contractive_preset(self):
        """Both spreads from A = J J^T: 2 sum_{i != j} A_ij^2 of signs, 2 sum_ij A_ij^2 of normal directions."""
        model = check(vaelab.compose(["model=contractive_ae"])).model().double()
        x = torch.rand(2, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

        def encode(at):
            return model.encode(at).mean

        signs, normal = [], []
        for one in x:
            jacobian = torch.autograd.functional.jacobian(encode, one[None])[0].flatten(1)  # (Z, pixels)
            squares = (jacobian @ jacobian.T).square()
            normal.append((2 * squares.sum()).sqrt())
            signs.append((2 * (squares.sum() - squares.diagonal().sum())).sqrt())
        signs, normal = torch.stack(signs), torch.stack(normal)
        torch.manual_seed(0)
        drawn = jacobian_norm(encode, x.repeat_interleave(1000, 0)).detach().view(2, -1)

        torch.testing.assert_close(drawn.std(1), signs, rtol=0.15, atol=0)
        assert (signs / normal).tolist() == pytest.approx([1 / 3, 1 / 3], abs=0.05)

    @pytest.mark.parametrize("part", [EncoderJacobian(), DecoderJacobian()], ids=lambda part: type(part).__name__)
    def test_an_evaluation_without_gradients_has_the_same_value(self, part, model, images):
        value = penalty(part, model, images)
        assert value.requires_grad
        with torch.inference_mode():
            torch.testing.assert_close(penalty(part, model, images.clone()), value.detach())

    def test_the_penalty_shrinks_the_slope_that_it_is_of(self, model, images):
        def slope():
            return self.exact(lambda at: model.encode(at).mean, images).mean().item()

        before = slope()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for step in range(100):
            optimizer.zero_grad()
            penalty(EncoderJacobian(), model, images, step).backward()
            optimizer.step()
        assert slope() < 0.1 * before


def test_the_norm_of_codes_is_half_the_sum_of_their_squares_a_mean_over_images(model, images):
    z = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    assert CodeNorm()(model, images, Delta(z), z, 0).item() == pytest.approx((25 / 2 + 1 / 2) / 2)


def test_the_norm_of_the_decoder_is_the_sum_of_the_squares_of_its_weights(model, images):
    expected = sum(float((weights.detach().numpy() ** 2).sum()) for weights in model.decoder.parameters())
    assert penalty(DecoderNorm(), model, images).item() == pytest.approx(expected)


def test_sparsity_is_the_divergence_between_coins(model, images):
    z = torch.tensor([[0.1, 0.5], [0.3, 0.9]], dtype=torch.float64)
    expected = sum(
        kl_divergence(torch.distributions.Bernoulli(0.05), torch.distributions.Bernoulli(active)).item()
        for active in (0.2, 0.7)
    )
    assert Sparsity()(model, images, Delta(z), z, 0).item() == pytest.approx(expected, rel=1e-6)
    wanted = torch.full((4, 2), 0.05)
    assert Sparsity()(model, images, Delta(wanted), wanted, 0).item() == pytest.approx(0, abs=1e-7)
    dead = torch.zeros(4, 2)
    assert Sparsity()(model, images, Delta(dead), dead, 0).isfinite()


def test_the_sampled_kl_agrees_with_the_closed_form_in_the_mean(model, images):
    x = images[:1].repeat(20_000, 1, 1, 1)
    q = model.encode(x)
    torch.manual_seed(0)
    z = q.rsample()
    ratio = (q.log_prob(z) - model.prior().log_prob(z)).detach()
    difference = KL(kl="monte_carlo")(model, x, q, z, 0) - KL()(model, x, q, z, 0)
    assert abs(difference.item()) < 4 * ratio.std().item() / math.sqrt(20_000)


class TestRegularized:
    def test_the_loss_is_reconstruction_plus_each_weight_times_its_unweighted_term(self, model, images):
        parts = {"kl": KL(weight=2.0), "code": CodeNorm(weight=Linear(end=3.0, steps=10))}
        for step, weight in [(0, 0.0), (5, 1.5), (math.inf, 3.0)]:
            terms = Regularized(regularizers=parts)(model, images, step)
            assert list(terms) == ["loss", "reconstruction", "kl", "code"]
            expected = terms["reconstruction"] + 2 * terms["kl"] + weight * terms["code"]
            torch.testing.assert_close(terms["loss"], expected)

    def test_with_the_kl_alone_it_is_the_elbo(self, model, images):
        from vaelab.losses import ELBO

        torch.manual_seed(0)
        ours = Regularized(regularizers={"kl": KL(weight=4.0)})(model, images, 0)
        torch.manual_seed(0)
        theirs = ELBO(kl_weight=4.0)(model, images, 0)
        assert all(ours[name].equal(theirs[name]) for name in theirs)

    def test_a_corruption_is_seen_by_the_encoder_alone_and_in_training_alone(self, images):
        model = model_of(Deterministic, prior=False)
        objective = Regularized(corruption=Masking(amount=1.0))
        black = -model.decode(model.encode(torch.zeros_like(images)).mean).log_prob(images).mean()
        torch.testing.assert_close(objective(model, images, 5)["loss"], black)
        clean = Reconstruction()(model, images, math.inf)["loss"]
        torch.testing.assert_close(objective(model, images, math.inf)["loss"], clean)

    def test_regularizers_that_want_to_know_are_told_the_size_of_the_dataset(self):
        part = TotalCorrelation()
        objective = Regularized(regularizers={"kl": KL(), "tc": part, "gone": None})
        objective.drawn_from(77)
        assert part.images == 77
        assert list(objective.regularizers) == ["kl", "tc"]

    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ({}, "neither a regularizer nor a corruption"),
            ({"gone": None}, "neither a regularizer nor a corruption"),
            ({"loss": CodeNorm()}, "regularizers.loss: a CodeNorm cannot have this name: code_norm"),
            ({"kl": MMD()}, "regularizers.kl: a MMD cannot have this name: mmd"),
            ({"divergence": KL()}, "regularizers.divergence: a KL cannot have this name: kl"),
        ],
        ids=lambda value: value if isinstance(value, str) else ",".join(value),
    )
    def test_names_that_would_mislead_are_refused(self, parts, message):
        with pytest.raises(ValueError, match=message):
            Regularized(regularizers=parts)


ADD = "+regularizer@objective.regularizers"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=wae_mmd", "~prior"], "the regularizer mmd needs a prior to draw samples of: prior=standard_normal"),
        (["model=wae_mmd", "prior=mixture"], "those of prior=mixture pass no gradients to it"),
        (["model=wae_mmd", "posterior=von_mises_fisher"], "prior=hyperspherical_uniform goes with it"),
        (["model=beta_tcvae", "posterior=deterministic"], "objective=regularized with the regularizer kl does not go"),
        (["model=rae_l2", f"{ADD}.tc=total_correlation"], "posterior=deterministic has none: take posterior=gaussian"),
        (
            ["model=beta_tcvae", "posterior=full_covariance_gaussian"],
            "the regularizer total_correlation needs the density of each latent dimension",
        ),
        (["model=dip_vae_ii", "posterior=iaf", "objective.regularizers.kl=null"], "covariance=means, or posterior"),
        (["model=sparse_ae", "posterior.activation=null"], "posterior=deterministic posterior.activation=sigmoid"),
        (["model=rae_l2", "prior=standard_normal"], "(code_norm, decoder_norm) has anything to do with prior="),
        (["model=rae_l2", "posterior=vector_quantizer"], "would not train the codes of posterior=vector_quantizer"),
        (["objective=regularized"], "add one, such as +regularizer@objective.regularizers.mmd=mmd"),
        (["model=wae_mmd", "objective.regularizers.mmd.scales=[]"], "at least 1 item"),
        (["model=wae_mmd", "objective.regularizers.mmd.kernel=rfb"], "did you mean rbf?"),
        (["model=wae_mmd", "objective.regularizers.mmd.wieght=1"], "did you mean weight?"),
        (["model=denoising_ae", "objective.corruption.amount=2"], "less than or equal to 1"),
        (["model=k_sparse_ae", "latent_dim=10"], "posterior.active=25 of latent_dim=10"),
        (["model=capacity_vae", "posterior=iaf"], "posterior=iaf to prior=standard_normal has no closed form"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_named_with_what_would(overrides, message):
    with pytest.raises(vaelab.ConfigError) as error:
        check(vaelab.compose(["data=digits", *overrides]))
    assert message in str(error.value)


def test_the_documented_commands_are_valid():
    page = Path(__file__).parents[2] / "docs" / "models.md"
    commands = [line.split()[2:] for line in page.read_text().splitlines() if line.startswith("vaelab train ")]
    assert len(commands) > 3
    for overrides in commands:
        check(vaelab.compose(["data=digits", *overrides]))


def test_a_deterministic_code_is_matched_to_a_prior_by_its_samples(images):
    model = model_of(Deterministic)
    objective = Regularized(regularizers={"mmd": MMD()})
    objective.requires(model)
    assert objective(model, images, 0)["mmd"].isfinite()


def test_a_likelihood_of_black_and_white_has_a_slope_too(images):
    model = model_of(Deterministic, prior=False)
    model.likelihood = Bernoulli(SHAPE)
    assert penalty(DecoderJacobian(), model, images) > 0


def test_a_decoder_without_weights_has_no_norm():
    model = model_of(Deterministic, prior=False)
    model.decoder = nn.Unflatten(-1, SHAPE)
    with pytest.raises(ValueError, match="decoder=unflatten has no weights"):
        DecoderNorm().requires(model)
