"""Fashion-MNIST and MNIST: 70,000 small grey images in ten classes each, in the IDX format.

Fashion-MNIST: Xiao, Rasul and Vollgraf 2017 (arXiv 1708.07747), MIT licence. MNIST: LeCun, Cortes
and Burges 1998.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from minigan.data.idx import read_labelled_images
from minigan.data.images import LabelledImages, padded
from minigan.data.places import MissingDataError, cache_folder, data_folders, find_all

FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


@dataclass(frozen=True)
class Source:
    """A data set in the format of MNIST: its classes, and where its files come from."""

    title: str
    url: str
    sha256: tuple[str, str, str, str]  # training images, labels, test images, labels, packed
    classes: tuple[str, ...]
    debian: str = ""


SOURCES = {
    "fashion-mnist": Source(
        "Fashion-MNIST",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        (
            *("T-shirt", "trousers", "pullover", "dress", "coat"),
            *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
        ),
        "dataset-fashion-mnist",
    ),
    "mnist": Source(
        "MNIST",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        tuple("0123456789"),
    ),
}


def fashion_mnist(
    data_dir: str | os.PathLike | None = None,
    part: str = "train",
    size: int = 28,
    download: bool = False,
) -> LabelledImages:
    """Fashion-MNIST: 60,000 images of clothes to train on, or 10,000 to test with.

    The files are looked for in `data_dir`; without one, in `$MINIGAN_DATA`, in the folder of
    Debian's package `dataset-fashion-mnist`, and in the user's cache.

    Args:
        part: "train" or "test".
        size: pixels a side; above 28 black is put around, as DCGANs need 32.
        download: fetch into `data_dir`, or else the cache, if the files are nowhere.

    Returns:
        Images uint8 `(N, size, size, 1)`, labels int64 `(N,)`, the names of the classes.

    Raises:
        MissingDataError: the files are nowhere; the message says how to get them.
        DataError: a file is not what it should be, or cannot be downloaded.
        ValueError: an unknown part, or a size below 28.
    """
    return _read("fashion-mnist", data_dir, part, size, download)


def mnist(
    data_dir: str | os.PathLike | None = None,
    part: str = "train",
    size: int = 28,
    download: bool = False,
) -> LabelledImages:
    """MNIST: handwritten digits; all else as `fashion_mnist`, but Debian has no package of it."""
    return _read("mnist", data_dir, part, size, download)


def download_mnist(name: str, folder: str | os.PathLike, progress: bool = True) -> list[Path]:
    """Fetch the four files of "fashion-mnist" or "mnist" into `folder`, checked by SHA-256.

    Raises:
        DataError: as `minigan.data.download.download`.
        ValueError: another name.
    """
    if name not in SOURCES:
        raise ValueError(f"download_mnist: no data set {name!r}; there are {', '.join(SOURCES)}")
    source, files = SOURCES[name], [file for pair in FILES.values() for file in pair]
    return [
        fetch(source.url + file, Path(folder) / file, sha256, progress)
        for file, sha256 in zip(files, source.sha256, strict=True)
    ]


def fetch(url: str, path: Path, sha256: str, progress: bool) -> Path:
    """As `minigan.data.download.download`."""
    from minigan.data import download  # 30 ms to import, for HTTP, and few programs need it

    return download.download(url, path, sha256, progress)


def _read(
    name: str, data_dir: str | os.PathLike | None, part: str, size: int, download: bool
) -> LabelledImages:
    source = SOURCES[name]
    if part not in FILES:
        raise ValueError(f"{name}: part is {part!r} but must be 'train' or 'test'")
    folders = data_folders(name, data_dir)
    found = find_all(folders, FILES[part])
    if found is None and download:
        download_mnist(name, folders[0] if data_dir is not None else cache_folder() / name)
        found = find_all(folders, FILES[part])
    if found is None:
        raise MissingDataError(source.title, folders, _advice(name, source))
    images, labels = read_labelled_images(*found, classes=len(source.classes))
    return LabelledImages(padded(images, size, name), labels, source.classes)


def _advice(name: str, source: Source) -> str:
    """How to get the files, in words."""
    debian = f"On Debian or Ubuntu: apt install {source.debian}. " if source.debian else ""
    function = name.replace("-", "_")
    return (
        f"{debian}Or set MINIGAN_DATA (or --data-dir of a script) to a folder with "
        f"{FILES['train'][0]} and the other three files, or download them, about "
        f"{30 if source.debian else 11} MB: "
        f'python -c "from minigan import data; data.{function}(download=True)"'
    )
