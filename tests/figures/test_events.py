"""Events that are no images, drawn as images."""

import pytest
import torch

from vaelab.figures.events import HEIGHT, WIDTH, View


def dark(image: torch.Tensor) -> torch.Tensor:
    """Where a drawing has ink, (H, W)."""
    return image.mean(0) < 0.7


def test_images_in_their_range_are_drawn_as_they_are() -> None:
    images = torch.rand(2, 5, 3, 4, 6)
    assert View((3, 4, 6))(images) is images


def test_images_in_another_range_are_brought_to_black_and_white() -> None:
    drawn = View((1, 2, 2), -2.0, 6.0)(torch.tensor([[[[-2.0, 6.0], [2.0, 9.0]]]]))
    assert drawn.tolist() == [[[[0.0, 1.0], [0.5, 1.0]]]]


@pytest.mark.parametrize("shape", [(3,), (100,), (1, 40), (6, 200), (1, 5, 4, 4), (2, 3, 4)], ids=str)
def test_whatever_comes_before_the_event_stays(shape: tuple[int, ...]) -> None:
    view = View(shape, -1.0, 1.0)
    drawn = view(torch.randn(2, 3, *shape))

    assert drawn.shape[:2] == (2, 3)
    assert drawn.dim() == 5
    assert 0 <= drawn.min() <= drawn.max() <= 1
    torch.testing.assert_close(view(torch.ones(4, *shape)), view(torch.ones(1, *shape)).expand(4, -1, -1, -1))


def test_a_signal_is_a_line_as_high_as_its_values() -> None:
    rising = torch.linspace(-1, 1, 50)[None, None]
    image = dark(View((1, 50), -1.0, 1.0)(rising)[0])
    rows = torch.arange(HEIGHT)[:, None]
    middle = (rows * image).sum(0) / image.sum(0)  # of each column

    assert image.any(0).all()
    expected = torch.linspace(HEIGHT - 4 + 1.5, 1.5, WIDTH)
    assert (middle - expected).abs().max() < 1


def test_bars_go_from_zero_up_and_down() -> None:
    image = dark(View((2,), -1.0, 1.0)(torch.tensor([[1.0, -0.5]]))[0])
    up, down = image[:, : WIDTH // 2 - 1].any(1), image[:, WIDTH // 2 :].any(1)
    zero = (HEIGHT - 4) / 2 + 1.5

    assert up.nonzero().flatten().float().aminmax() == pytest.approx((1.5, zero), abs=1)
    assert down.nonzero().flatten().float().aminmax() == pytest.approx((zero, zero + (HEIGHT - 4) / 4), abs=1)


def test_a_volume_is_some_of_its_planes_side_by_side() -> None:
    volume = torch.arange(8.0).reshape(1, 1, 8, 1, 1).expand(1, 1, 8, 3, 2)
    drawn = View((1, 8, 3, 2), 0.0, 7.0)(volume)

    assert drawn.shape == (1, 1, 3, 8)
    torch.testing.assert_close(drawn[0, 0, 0], torch.tensor([1, 1, 3, 3, 5, 5, 7, 7]) / 7)
