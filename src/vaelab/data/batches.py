"""Batches gathered from a tensor: one indexed read each, no per-sample Python."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from vaelab.data.augmentation import Augmentation
from vaelab.data.images import Images
from vaelab.seeding import derive_seed

Found = TypeVar("Found")
AHEAD = 2  # batches that are read from files while a step runs


class Batch(NamedTuple):
    """What a step sees: images (B, C, H, W), or other events (B, *event), float32, and labels (B,), int64."""

    images: Tensor
    labels: Tensor


class Batches:
    """The batches of one split, epoch by epoch.

    The order of an epoch is f(seed, epoch), and a dynamically binarized batch is f(seed, epoch, batch), so an
    iteration can start anywhere, and nothing but the position has to be remembered to do so.

    Args:
        images: the split; its values stay where they are, as they are stored, and are made float a batch at a time.
        batch_size: images in a batch; the last batch of an epoch takes what is left.
        seed: what the order of an epoch and dynamic binarization are drawn from; None keeps the order.
        dynamic: draw each pixel anew, 1 with a probability of its grey value (Salakhutdinov & Murray 2008).
        augment: change images at random.
        position: called when an iteration starts; the (epoch, batch) to start at.
        device: where batches are made; by default where the images are.
        rank: which of the processes that share every batch this one is.
        world_size: how many they are; process r takes the images r, r + world_size, ... of a batch.
        whole: process r takes the batches r, r + world_size, ... as they are, and has empty ones for the others.
    """

    def __init__(
        self,
        images: Images,
        *,
        batch_size: int,
        seed: int | None = None,
        dynamic: bool = False,
        augment: Augmentation | None = None,
        position: Callable[[], tuple[int, int]] = lambda: (0, 0),
        device: torch.device | None = None,
        rank: int = 0,
        world_size: int = 1,
        whole: bool = False,
    ) -> None:
        if (dynamic or augment) and seed is None:
            raise ValueError("dynamic binarization and augmentation draw: they need a seed")
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.dynamic = dynamic
        self.augment = augment
        self.position = position
        self.device = device or images.store.device
        self.rank = rank
        self.world_size = world_size
        self.whole = whole

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch, from the position on."""
        epoch, start = self.position()
        store, labels, scaled = self.images.store, self.images.store_labels, self.images.scaling.apply
        batches = torch.split(self.images.rows(self.order(epoch)), self.batch_size)[start:]
        shares = [self._share(rows, number) for number, rows in enumerate(batches, start)]
        stored = self._read_ahead(shares) if store.in_files else map(store.rows, shares)
        for number, (rows, own, values) in enumerate(zip(batches, shares, stored, strict=True), start):
            x = scaled(values.to(self.device, non_blocking=self.device.type == "cuda"))
            if self.augment is not None:
                assert self.seed is not None
                x = self.augment(x, own.to(self.device), self.seed, epoch)
            if self.dynamic:
                generator = _generator(self.seed, f"binarize/{epoch}", number, x.device)
                # Drawn for the whole batch: an image's pixels do not depend on the number of processes.
                thresholds = torch.rand(len(rows), *x.shape[1:], generator=generator, device=x.device)
                x = (self._own(thresholds) < x).float()
            yield Batch(x, labels.index_select(0, own).to(self.device))

    def _read_ahead(self, shares: Iterable[Tensor]) -> Iterator[Tensor]:
        """The rows of each share, which a thread reads while the ones before are used; for a GPU into pinned memory."""

        def read(numbers: Tensor) -> Tensor:
            rows = self.images.store.rows(numbers)
            return rows.pin_memory() if self.device.type == "cuda" else rows

        with ThreadPoolExecutor(1, "rows") as reader:
            waiting: deque[Future[Tensor]] = deque()
            for numbers in shares:
                waiting.append(reader.submit(read, numbers))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def size(self, number: int) -> int:
        """Images of batch `number` of an epoch, in all processes together."""
        return min(self.batch_size, len(self.images) - number * self.batch_size)

    def own(self, number: int) -> int:
        """Images of batch `number` that this process takes; where it is 0, it sees one that counts for nothing."""
        return len(range(self.rank, self.size(number), self.world_size))

    def _share(self, rows: Tensor, number: int) -> Tensor:
        """Which rows of batch `number` this process takes."""
        if not self.whole:
            return self._own(rows)
        return rows if number % self.world_size == self.rank else rows[:0]

    def _own(self, batch: Tensor) -> Tensor:
        """What of a batch this process takes; never nothing, which a network could not take."""
        return batch[self.rank :: self.world_size] if self.rank < len(batch) else batch[:1]

    def order(self, epoch: int) -> Tensor:
        """The images' numbers in the order of an epoch, (N,)."""
        device = self.images.store.device
        if self.seed is None:
            return torch.arange(len(self.images), device=device)
        # Drawn on the CPU: the same order on every device.
        generator = _generator(self.seed, "order", epoch, torch.device("cpu"))
        return torch.randperm(len(self.images), generator=generator).to(device)


def in_turn(shares: Sequence[Sequence[Found]]) -> list[Found]:
    """What each process has found in its `whole` batches, in the order of the batches.

    >>> in_turn([["first", "third"], ["second"]])
    ['first', 'second', 'third']
    """
    longest = max(map(len, shares))
    return [share[number] for number in range(longest) for share in shares if number < len(share)]


def _generator(seed: int | None, purpose: str, index: int, device: torch.device) -> torch.Generator:
    assert seed is not None
    return torch.Generator(device).manual_seed(derive_seed(seed, purpose, index))
