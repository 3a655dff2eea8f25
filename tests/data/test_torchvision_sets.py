import gzip
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torchvision.datasets import mnist as torchvision_mnist

from vaelab.data import KMNIST, MNIST, FashionMNIST
from vaelab.errors import DataError

FILES = [f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
SIZES = {"train": 12, "t10k": 5}


def fake(path, *, size=28):
    """A small dataset in the idx format: magic number, sizes, bytes."""
    path.mkdir(parents=True)
    for name in FILES:
        n = SIZES[name.split("-")[0]]
        sizes = (n, size, size) if "images" in name else (n,)
        generator = torch.Generator().manual_seed(len(name) + n)
        content = torch.randint(0, 10, sizes, dtype=torch.uint8, generator=generator)
        header = bytes([0, 0, 8, len(sizes)]) + b"".join(size.to_bytes(4, "big") for size in sizes)
        (path / name).write_bytes(header + content.numpy().tobytes())


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def network(monkeypatch):
    """A network that serves the small datasets; made to fail after so many files."""

    def serve(files=4):
        served = []

        def download(url, download_root, filename, md5=None):
            if len(served) == files:
                (Path(download_root) / filename).write_bytes(b"half of a file")
                raise RuntimeError("the connection broke")
            served.append(filename)
            name = filename.removesuffix(".gz")
            if not (Path(download_root) / name).exists():
                whole = Path(download_root) / "whole"
                fake(whole)
                (whole / name).rename(Path(download_root) / name)
                for rest in whole.iterdir():
                    rest.unlink()
                whole.rmdir()

        monkeypatch.setattr(torchvision_mnist, "download_and_extract_archive", download)

    return serve


@pytest.mark.parametrize("data_class", [MNIST, FashionMNIST, KMNIST])
def test_the_files_in_root_are_read_into_splits(data_class, tmp_path, no_network):
    fake(tmp_path / data_class.__name__ / "raw")
    train, validation, test = data_class(root=str(tmp_path), validation=4, batch_size=4).splits

    assert (len(train), len(validation), len(test)) == (8, 4, 5)
    for split in (train, validation, test):
        assert split.pixels.shape == (len(split), 1, 28, 28)
        assert (split.pixels.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
    raw = (tmp_path / data_class.__name__ / "raw" / "t10k-images-idx3-ubyte").read_bytes()
    assert test.pixels.numpy().tobytes() == raw[16:]


@pytest.mark.parametrize("root", ["data", "deep/down/data"])
def test_without_data_and_network_there_is_an_error_that_says_what_to_do_and_nothing_is_left(
    root, tmp_path, monkeypatch, no_network
):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(DataError, match=r"(?s)MNIST in .*data\.root=.*not there.*mnist_5k"):
        _ = MNIST(root=root).splits

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_keeps_what_was_in_it(tmp_path, no_network):
    (tmp_path / "other").write_text("mine")

    with pytest.raises(DataError, match="not there"):
        _ = MNIST(root=str(tmp_path)).splits

    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize("files", [0, 1, 3])
def test_a_download_that_breaks_off_leaves_nothing_behind(files, tmp_path, network):
    network(files)

    with pytest.raises(DataError, match=r"(?s)could not be downloaded.*connection broke"):
        _ = MNIST(root=str(tmp_path / "data"), validation=4, batch_size=4).splits

    assert list(tmp_path.iterdir()) == []


def test_a_download_that_succeeds_is_there_the_next_time(tmp_path, network, no_network):
    network()
    first = KMNIST(root=str(tmp_path / "data"), validation=4, batch_size=4).splits
    network(0)
    again = KMNIST(root=str(tmp_path / "data"), validation=4, batch_size=4).splits

    assert [path.name for path in (tmp_path / "data").iterdir()] == ["KMNIST"]
    assert all(a.pixels.equal(b.pixels) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("left", [0, 3, 10, 40])
def test_a_truncated_file_is_an_error_that_names_the_folder(name, left, tmp_path, no_network):
    fake(tmp_path / "MNIST" / "raw")
    file = tmp_path / "MNIST" / "raw" / name
    content = file.read_bytes()
    file.write_bytes(content[: min(left, len(content) - 1)])

    with pytest.raises(DataError, match=r"MNIST in .*incomplete or damaged"):
        _ = MNIST(root=str(tmp_path), validation=4, batch_size=4).splits


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_an_error(name, tmp_path, no_network):
    fake(tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw" / name).unlink()

    with pytest.raises(DataError, match="incomplete or damaged"):
        _ = MNIST(root=str(tmp_path), validation=4, batch_size=4).splits


def test_labels_of_other_images_are_an_error(tmp_path, no_network):
    raw = tmp_path / "MNIST" / "raw"
    fake(raw)
    (raw / "train-labels-idx1-ubyte").write_bytes((raw / "t10k-labels-idx1-ubyte").read_bytes())

    with pytest.raises(DataError, match="incomplete or damaged"):
        _ = MNIST(root=str(tmp_path), validation=4, batch_size=4).splits


def test_images_of_another_size_are_an_error(tmp_path, no_network):
    fake(tmp_path / "MNIST" / "raw", size=14)

    with pytest.raises(DataError, match="incomplete or damaged"):
        _ = MNIST(root=str(tmp_path), validation=4, batch_size=4).splits


def test_a_validation_split_larger_than_the_data_is_an_error(tmp_path, no_network):
    fake(tmp_path / "MNIST" / "raw")

    with pytest.raises(DataError, match=r"data\.validation=10000.*12 images"):
        _ = MNIST(root=str(tmp_path)).splits


@pytest.mark.parametrize("label", [10, 255])
def test_a_label_that_is_no_class_is_an_error(label, tmp_path, no_network):
    fake(tmp_path / "MNIST" / "raw")
    file = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-1] + bytes([label]))

    with pytest.raises(DataError, match="not one of the 10 classes"):
        _ = MNIST(root=str(tmp_path), validation=4, batch_size=4).splits


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
@pytest.mark.parametrize("place", ["MNIST/raw", "MNIST/raw/train-images-idx3-ubyte", "."])
def test_files_that_may_not_be_read_are_an_error_that_says_so(place, tmp_path, no_network):
    fake(tmp_path / "data" / "MNIST" / "raw")
    (tmp_path / "data" / place).chmod(0)
    for parent in (tmp_path, *tmp_path.parents[:2]):  # for another user to get there at all
        parent.chmod(0o755)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may read everything
    try:
        with pytest.raises(DataError, match=r"(?i)MNIST in .*(permission denied|cannot be read|damaged)"):
            _ = MNIST(root=str(tmp_path / "data"), validation=4, batch_size=4).splits
    finally:
        if root:
            os.seteuid(0)
        (tmp_path / "data" / place).chmod(0o755)


@pytest.fixture
def mirror(tmp_path):
    """The address of a server on this machine that has files of MNIST's names, 2 MB each, with other content."""
    served = tmp_path / "served"
    served.mkdir()
    for name in FILES:
        (served / f"{name}.gz").write_bytes(gzip.compress(os.urandom(2 << 20)))

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=served)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_download_with_a_wrong_checksum_is_refused_and_not_kept(mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision_mnist.MNIST, "mirrors", [mirror])

    with pytest.raises(DataError, match=r"could not be downloaded.*(corrupted|Error downloading)"):
        _ = MNIST(root=str(tmp_path / "data")).splits

    assert not (tmp_path / "data").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_download_that_the_disk_has_no_room_for_leaves_nothing(mirror, tmp_path):
    """A limit on the size of files fails a write as a full disk does."""
    script = (
        "import resource, torchvision; from vaelab.data import MNIST; from vaelab.errors import DataError\n"
        f"torchvision.datasets.MNIST.mirrors = [{mirror!r}]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        f"try: MNIST(root={str(tmp_path / 'deep' / 'data')!r}).splits\n"
        "except DataError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)

    assert "could not be downloaded: [Errno 27] File too large" in result.stdout, result.stderr
    assert not (tmp_path / "deep").exists()


def test_a_download_that_fails_removes_nothing_that_another_process_has_put_there(tmp_path, monkeypatch):
    def download(url, download_root, filename, md5=None):
        (tmp_path / "data" / "KMNIST").mkdir(exist_ok=True)
        raise RuntimeError("the connection broke")

    monkeypatch.setattr(torchvision_mnist, "download_and_extract_archive", download)
    with pytest.raises(DataError, match="connection broke"):
        _ = MNIST(root=str(tmp_path / "data")).splits

    assert [path.name for path in (tmp_path / "data").iterdir()] == ["KMNIST"]


def test_of_two_processes_that_download_at_once_both_have_the_data(tmp_path, network, monkeypatch):
    root = tmp_path / "data"
    network()
    ours = torchvision_mnist.download_and_extract_archive

    def download(*arguments, **keywords):
        if not (root / "KMNIST").exists():
            fake(root / "KMNIST" / "raw")  # the other process was faster
        ours(*arguments, **keywords)

    monkeypatch.setattr(torchvision_mnist, "download_and_extract_archive", download)
    assert len(KMNIST(root=str(root), validation=4, batch_size=4).splits.train) == 8
    assert [path.name for path in root.iterdir()] == ["KMNIST"]


def test_a_download_that_is_interrupted_leaves_nothing(tmp_path, monkeypatch):
    def download(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(torchvision_mnist, "download_and_extract_archive", download)
    with pytest.raises(KeyboardInterrupt):
        _ = MNIST(root=str(tmp_path / "deep" / "data")).splits
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def full_mnist():
    project = Path(__file__).parents[2]
    roots = [Path(os.environ["VAELAB_DATA"])] if "VAELAB_DATA" in os.environ else []
    roots += [project / "data", project.parent / "shared" / "data"]
    root = next((root for root in roots if (root / "MNIST" / "raw").is_dir()), None)
    if root is None:
        pytest.skip("no full MNIST: set VAELAB_DATA to a folder that has it")
    return MNIST(root=str(root))


def test_full_mnist_has_its_known_numbers_of_each_digit(full_mnist):
    train, validation, test = full_mnist.splits

    assert (len(train), len(validation), len(test)) == (50_000, 10_000, 10_000)
    assert (train.labels.bincount() + validation.labels.bincount()).tolist() == [
        *(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
    ]
    assert test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # The mean and deviation that everyone normalises the 60,000 training images by.
    pixels = torch.cat([train.pixels, validation.pixels]).double() / 255
    assert pixels.mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std().item() == pytest.approx(0.3081, abs=5e-5)
