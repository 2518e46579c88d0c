"""CIFAR and idx files, made here byte by byte as their publishers made them."""

import gzip
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from resurge.data.formats.cifar import unpickle
from resurge.data.sources import open_data, open_split
from resurge.errors import UserError

PER_BATCH = 20


def py2_string(data: bytes) -> bytes:
    return b"T" + struct.pack("<i", len(data)) + data


def py2_array(array: np.ndarray, kind: bytes = b"u1") -> bytes:
    """The opcodes with which Python 2's cPickle and the NumPy of 2009 wrote an array."""
    shape = b"".join(b"J" + struct.pack("<i", n) for n in array.shape)
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + py2_string(b"b") + b"\x87R"
    dtype = b"cnumpy\ndtype\n" + py2_string(kind) + b"K\x00K\x01\x87R(K\x03" + py2_string(b"|")
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return made + b"(K\x01" + shape + b"\x86" + dtype + b"\x89" + py2_string(array.tobytes()) + b"tb"


def py2_pickle(**items) -> bytes:
    body = b""
    for key, value in items.items():
        body += py2_string(key.encode())
        if isinstance(value, np.ndarray):
            body += py2_array(value)
        elif value and isinstance(value[0], str):
            body += b"](" + b"".join(py2_string(v.encode()) for v in value) + b"e"
        else:
            body += b"](" + b"".join(b"J" + struct.pack("<i", v) for v in value) + b"e"
    return b"\x80\x02}(" + body + b"u."


CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def batch(seed: int, classes: int = 10) -> tuple[np.ndarray, list[int]]:
    pixels = np.random.default_rng(seed).integers(0, 256, (PER_BATCH, 3072), dtype=np.uint8)
    return pixels, [(i + seed) % classes for i in range(PER_BATCH)]


def cifar10_files(style: str) -> dict[str, bytes]:
    files = {}
    for i, name in enumerate([f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]):
        pixels, labels = batch(i)
        if style == "binary":
            files[name + ".bin"] = np.concatenate([np.array(labels, np.uint8)[:, None], pixels], 1).tobytes()
        elif style == "python2":
            files[name] = py2_pickle(data=pixels, labels=labels)
        else:
            files[name] = pickle.dumps({"data": pixels, "labels": labels}, protocol=int(style[-1]))
    if style == "binary":
        files["batches.meta.txt"] = "\n".join([*CIFAR10, ""]).encode()
    else:
        files["batches.meta"] = py2_pickle(label_names=CIFAR10)
    return files


def put(folder, files: dict[str, bytes]):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("style", ["python2", "protocol2", "protocol4", "protocol5", "binary"])
def test_cifar10(tmp_path, style):
    put(tmp_path / "cifar-10-batches", cifar10_files(style))
    bundle = open_data(tmp_path / "cifar-10-batches", seed=1, val_fraction=0.2)
    assert bundle.name == "CIFAR-10"
    assert bundle.classes == tuple(CIFAR10)
    assert [len(split) for split in bundle.splits().values()] == [80, 20, 20]
    assert (bundle.in_channels, bundle.default_size) == (3, 32)
    pixels, labels = batch(5)
    assert bundle.test.labels == tuple(labels)
    image = np.asarray(bundle.test.read(3))
    assert (image == pixels[3].reshape(3, 32, 32).transpose(1, 2, 0)).all()
    for index in (0, 13):
        where = int(bundle.train.id(index).split("-")[1])
        pixels, labels = batch(where // PER_BATCH)
        assert bundle.train.labels[index] == labels[where % PER_BATCH]
        expected = pixels[where % PER_BATCH].reshape(3, 32, 32).transpose(1, 2, 0)
        assert (np.asarray(bundle.train.read(index)) == expected).all()


@pytest.mark.parametrize("style", ["python2", "binary"])
def test_cifar100_and_the_folder_above_it(tmp_path, style):
    names = [f"class{i:03d}" for i in range(100)]
    files = {}
    for i, name in enumerate(["train", "test"]):
        pixels, labels = batch(i, 100)
        if style == "binary":
            columns = np.array([[7] * PER_BATCH, labels], np.uint8).T
            files[name + ".bin"] = np.concatenate([columns, pixels], 1).tobytes()
        else:
            files[name] = py2_pickle(data=pixels, fine_labels=labels, coarse_labels=[7] * PER_BATCH)
    if style == "binary":
        files["fine_label_names.txt"] = "\n".join(names).encode()
    else:
        files["meta"] = py2_pickle(fine_label_names=names)
    put(tmp_path / ("cifar-100-binary" if style == "binary" else "cifar-100-python"), files)
    bundle = open_data(tmp_path, val="test")
    assert bundle.name == "CIFAR-100"
    assert bundle.num_classes == 100
    assert bundle.test is None
    assert bundle.val.labels == tuple(batch(1, 100)[1])


@pytest.mark.parametrize("style", ["python2", "binary"])
def test_the_archive_is_read_as_it_is(tmp_path, style):
    folder = put(tmp_path / "x", cifar10_files(style))
    with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz") as archive:
        archive.add(folder, "cifar-10-batches-py")
    bundle = open_data(tmp_path / "cifar.tar.gz", val_fraction=0.2)
    assert len(bundle.train) == 80
    assert (np.asarray(bundle.test.read(0)) == np.asarray(open_data(folder).test.read(0))).all()
    data = (tmp_path / "cifar.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="damaged"):
        open_data(tmp_path / "cut.tar.gz")


class Evil:
    def __reduce__(self):
        return (os.system, ("echo pwned > pwned",))


@pytest.mark.parametrize("payload", [
    pickle.dumps(Evil()), pickle.dumps({"data": Evil(), "labels": [1]}, protocol=2),
    b"cos\nsystem\n(S'touch pwned'\ntR.",
    b"cbuiltins\neval\n(S'1'\ntR.", b"cnumpy\nload\n(S'x'\ntR.", b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
])  # fmt: skip
def test_a_malicious_batch_is_refused_and_runs_nothing(tmp_path, monkeypatch, payload):
    monkeypatch.chdir(tmp_path)
    folder = put(tmp_path / "c", cifar10_files("python2") | {"data_batch_3": payload})
    with pytest.raises(UserError, match=r"data_batch_3.*(wants to run|damaged)"):
        open_data(folder)
    assert not (tmp_path / "pwned").exists()


def test_unpickle_reads_only_bytes_arrays():
    with pytest.raises(UserError, match="only bytes"):
        unpickle(pickle.dumps({"data": np.zeros(3)}), "x")
    with pytest.raises(UserError, match="wants to run"):
        unpickle(pickle.dumps(Evil), "x")
    assert unpickle(pickle.dumps({"a": [1, "b", None]}), "x") == {"a": [1, "b", None]}


def damaged(files, name, change):
    return files | {name: change(files[name])}


@pytest.mark.parametrize("style, name, change, message", [
    ("python2", "data_batch_2", lambda d: d[:-100], "data_batch_2 is damaged"),
    ("python2", "data_batch_2", lambda d: b"", "damaged"),
    ("binary", "data_batch_2.bin", lambda d: d[:-1], "cut short"),
    ("binary", "test_batch.bin", lambda d: b"", "cut short"),
    ("binary", "data_batch_1.bin", lambda d: bytes([10]) + d[1:], r"image 0 has the label 10, out of range"),
    ("python2", "test_batch", lambda d: py2_pickle(data=batch(0)[0], labels=[-1] * PER_BATCH), "label -1, out"),
    ("python2", "test_batch", lambda d: py2_pickle(data=batch(0)[0], labels=[1, 2]), r"labels \(2,\)"),
    ("python2", "test_batch", lambda d: py2_pickle(data=batch(0)[0]), "lacks"),
    ("python2", "batches.meta", lambda d: py2_pickle(names=CIFAR10), "label_names"),
])  # fmt: skip
def test_damaged_cifar_is_explained(tmp_path, style, name, change, message):
    with pytest.raises(UserError, match=message):
        open_data(put(tmp_path / "c", damaged(cifar10_files(style), name, change)))


def test_missing_cifar_files_are_named(tmp_path):
    files = cifar10_files("binary")
    del files["data_batch_4.bin"]
    with pytest.raises(UserError, match=r"data_batch_4\.bin is missing"):
        open_data(put(tmp_path / "c", files))


# ----------------------------------------------------------------------------------------------------------- idx

FASHION_START = [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def idx_files(zipped=True, test_start=FASHION_START) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    train_labels = np.arange(60, dtype=np.uint8) % 10
    test_labels = np.array([*test_start, 0, 3, 8], np.uint8)
    arrays = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (60, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": train_labels,
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (13, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": test_labels,
    }
    return {
        name + (".gz" if zipped else ""): gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array)
        for name, array in arrays.items()
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_fashion_mnist(tmp_path, zipped):
    bundle = open_data(put(tmp_path / "f", idx_files(zipped)), val_fraction=1 / 6)
    assert bundle.name == "Fashion-MNIST"
    assert bundle.classes[9] == "Ankle boot"
    assert [len(split) for split in bundle.splits().values()] == [50, 10, 13]
    assert (bundle.in_channels, bundle.default_size) == (1, 28)
    assert bundle.test.labels[:10] == tuple(FASHION_START)
    assert bundle.val.counts(10) == (1,) * 10
    assert bundle.train.read(0).mode == "L"


def test_other_idx_files_have_numbers_for_names(tmp_path):
    bundle = open_data(put(tmp_path / "mnist", idx_files(test_start=[7, 2, 1, 0, 4, 1, 4, 9, 5, 9])))
    assert (bundle.name, bundle.classes) == ("mnist", tuple("0123456789"))


@pytest.mark.parametrize("name, change, message", [
    ("train-images-idx3-ubyte.gz", lambda d: d[:500], "cut short"),
    ("train-images-idx3-ubyte.gz", lambda d: b"not gzip", "damaged"),
    ("train-labels-idx1-ubyte.gz", lambda d: gzip.compress(gzip.decompress(d)[:-1]), "fewer"),
    ("train-labels-idx1-ubyte.gz", lambda d: gzip.compress(gzip.decompress(d) + b"x"), "more"),
    ("t10k-labels-idx1-ubyte.gz", lambda d: gzip.compress(idx_bytes(np.array([1, 2], np.uint8))), "13 images"),
    ("t10k-labels-idx1-ubyte.gz", lambda d: gzip.compress(b"\0\0\x0d\1" + gzip.decompress(d)[4:]), "no idx file"),
    ("train-labels-idx1-ubyte.gz", lambda d: gzip.compress(gzip.decompress(d)[:-1] + b"\x63"), "label 99, out"),
    ("train-images-idx3-ubyte.gz", lambda d: gzip.compress(b"\0\0\x08\3" + b"\xff" * 12), "announces"),
])  # fmt: skip
def test_damaged_idx_is_explained(tmp_path, name, change, message):
    with pytest.raises(UserError, match=message):
        open_data(put(tmp_path / "f", damaged(idx_files(), name, change)))


def test_missing_idx_file_is_named(tmp_path):
    files = idx_files()
    del files["t10k-labels-idx1-ubyte.gz"]
    with pytest.raises(UserError, match="t10k-labels is missing"):
        open_data(put(tmp_path / "f", files))


def test_evaluation_takes_the_test_part_with_the_networks_classes(tmp_path):
    folder = put(tmp_path / "f", idx_files())
    split, classes, what = open_split(folder)
    assert len(split) == 13
    assert "Fashion-MNIST" in what
    turned, names, _ = open_split(folder, classes=classes[::-1])
    assert names == classes[::-1]
    assert [names[label] for label in turned.labels] == [classes[label] for label in split.labels]
    with pytest.raises(UserError, match="'Sandal' is not one of training's"):
        open_split(folder, classes=classes[:5])
    with pytest.raises(UserError, match="already split"):
        open_split(folder, split="all")


def test_the_real_fashion_mnist(real_data):
    folder = real_data / "fashion-mnist"
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip("Fashion-MNIST is not unpacked")
    bundle = open_data(folder, val="test")
    assert (len(bundle.train), len(bundle.val)) == (60_000, 10_000)
    assert bundle.train.counts(10) == (6000,) * 10
    pixels = bundle.train.images.pixels
    assert pixels.mean() / 255 == pytest.approx(0.2860, abs=1e-4)
    assert pixels.std() / 255 == pytest.approx(0.3530, abs=1e-4)
