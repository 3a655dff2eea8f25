"""Small datasets of noise in the layouts of published ones, which torchvision reads."""

import bz2
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

PUBLISHED = ("cifar10", "cifar100", "svhn", "emnist", "usps", "stl10", "omniglot", "celeba", "dsprites")
NOISE = np.random.default_rng(0)
ATTRIBUTES = ["Bald", "Smiling", "Young"]


def make_all(root: Path) -> None:
    """Write all of them, once."""
    if not root.exists():
        for make in (cifar, svhn, emnist, usps, stl10, omniglot, celeba, dsprites):
            make(root)


def pixels(*shape: int) -> np.ndarray:
    return NOISE.integers(0, 256, shape, np.uint8)


def cifar(root: Path) -> None:
    for folder, names, key, files, classes in (
        ("cifar-10-batches-py", "label_names", "labels", [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"], 10),
        ("cifar-100-python", "fine_label_names", "fine_labels", ["train", "test"], 100),
    ):
        (root / folder).mkdir(parents=True)
        meta = "batches.meta" if classes == 10 else "meta"
        (root / folder / meta).write_bytes(pickle.dumps({names: [str(n) for n in range(classes)]}))
        for name in files:
            content = {"data": pixels(20, 3072), key: [n % classes for n in range(20)]}
            (root / folder / name).write_bytes(pickle.dumps(content))


def svhn(root: Path) -> None:
    from scipy.io import savemat

    root.mkdir(exist_ok=True)
    for split, count in (("train", 40), ("test", 20)):
        labels = np.arange(count)[:, None] % 10 + 1  # 10 is the digit 0
        savemat(root / f"{split}_32x32.mat", {"X": pixels(32, 32, 3, count), "y": labels.astype(np.uint8)})


def emnist(root: Path) -> None:
    raw = root / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, first, classes in (("balanced", 0, 47), ("letters", 1, 26)):
        for split, count in (("train", 60), ("test", 30)):
            header = np.array([0x803, count, 28, 28], ">i4").tobytes()
            (raw / f"emnist-{part}-{split}-images-idx3-ubyte").write_bytes(header + pixels(count, 28, 28).tobytes())
            header = np.array([0x801, count], ">i4").tobytes()
            labels = (np.arange(count) % classes + first).astype(np.uint8)
            (raw / f"emnist-{part}-{split}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def usps(root: Path) -> None:
    root.mkdir(exist_ok=True)
    for name, count in (("usps.bz2", 40), ("usps.t.bz2", 20)):
        rows = NOISE.uniform(-1, 1, (count, 256))
        lines = (
            f"{n % 10 + 1} " + " ".join(f"{k}:{v:.4f}" for k, v in enumerate(row, 1)) for n, row in enumerate(rows)
        )
        (root / name).write_bytes(bz2.compress("".join(f"{line}\n" for line in lines).encode()))


def stl10(root: Path) -> None:
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    for split, count in (("train", 20), ("test", 10), ("unlabeled", 6)):
        (folder / f"{split}_X.bin").write_bytes(pixels(count, 3, 96, 96).tobytes())
        (folder / f"{split}_y.bin").write_bytes((np.arange(count) % 10 + 1).astype(np.uint8).tobytes())


def omniglot(root: Path) -> None:
    for split, alphabets in (("background", ["Greek", "Latin"]), ("evaluation", ["Tengwar"])):
        (root / "omniglot-py").mkdir(parents=True, exist_ok=True)
        (root / "omniglot-py" / f"images_{split}.zip").write_bytes(b"")  # torchvision looks at its checksum
        for alphabet in alphabets:
            for number in range(10):
                path = root / "omniglot-py" / f"images_{split}" / alphabet / f"character{number % 2}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels(105, 105) > 20).save(path)


def celeba(root: Path) -> None:
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    files = [f"{n:06}.jpg" for n in range(1, 41)]
    for file in files:
        Image.fromarray(pixels(218, 178, 3)).save(folder / "img_align_celeba" / file)
    rows = [
        f"{file} {' '.join(map(str, row))}" for file, row in zip(files, NOISE.choice([-1, 1], (40, 3)), strict=True)
    ]
    (folder / "list_attr_celeba.txt").write_text("\n".join(["40", " ".join(ATTRIBUTES), *rows, ""]))
    splits = [f"{file} {0 if n < 24 else 1 if n < 32 else 2}" for n, file in enumerate(files)]
    (folder / "list_eval_partition.txt").write_text("\n".join([*splits, ""]))


def dsprites(root: Path) -> None:
    root.mkdir(exist_ok=True)
    classes = np.stack(np.meshgrid(*map(range, (1, 3, 2, 4, 4, 4)), indexing="ij"), -1).reshape(-1, 6)
    images = NOISE.integers(0, 2, (len(classes), 64, 64), np.uint8)
    path = root / "dsprites_ndarray_co1sh3sc6or40x32x32_64x64.npz"
    np.savez_compressed(path, imgs=images, latents_classes=classes, metadata=np.array({"author": 1}, object))
