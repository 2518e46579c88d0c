import logging
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resurge.data import workers
from resurge.data.augmentation import Augmentation
from resurge.data.images import UnreadableImage
from resurge.data.loading import EpochSampler, IndexedDataset, cache, class_weights, verify
from resurge.data.preprocessing import Preprocessing
from resurge.data.splits import ArrayImages, FileImages, Split
from resurge.data.transforms import TrainTransform
from resurge.data.workers import make_loader
from resurge.errors import UserError

PRE = Preprocessing(8, 1.0, (0.5,), (0.5,), 1, squash=True)


def array_split(count=40, classes=4) -> Split:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8), dtype=np.uint8)
    return Split(tuple(f"i{i}" for i in range(count)), ArrayImages(pixels), tuple(i % classes for i in range(count)))


@pytest.fixture
def files(tmp_path) -> Split:
    """Twelve PNG files of three classes; image i is grey of value 10 * i."""
    names = tuple(f"{i}.png" for i in range(12))
    for i, name in enumerate(names):
        Image.new("L", (8, 8), 10 * i).save(tmp_path / name)
    return Split(names, FileImages(tmp_path, names), tuple(i // 4 for i in range(12)))


def spoil(split: Split, *indices: int) -> None:
    for index in indices:
        split.path(index).write_bytes(b"no longer an image")


# ------------------------------------------------------------------------------------------------------- sampler


@given(
    st.integers(1, 60), st.integers(1, 9), st.integers(1, 4), st.booleans(), st.booleans(), st.booleans(),
    st.integers(0, 5), st.integers(0, 2**40),
)  # fmt: skip
@settings(max_examples=150)
def test_every_epoch_is_complete_equal_and_repeatable(count, batch, world, balanced, drop, shuffle, epoch, seed):
    labels = [i % 3 for i in range(count)]
    shuffle = shuffle or balanced
    seen, shapes = [], []
    for rank in range(world):
        sampler = EpochSampler(labels, batch, seed, balanced=balanced, drop_last=drop, shuffle=shuffle, rank=rank,
                               world_size=world)  # fmt: skip
        sampler.set_position(epoch)
        batches = list(sampler)
        assert batches == list(sampler)
        assert len(batches) == len(sampler) >= 1
        assert all(key[0] == epoch and 0 <= key[1] < count for keys in batches for key in keys)
        assert all(len(keys) == batch for keys in batches[:-1])
        assert 1 <= len(batches[-1]) <= batch
        if drop and count >= batch * world:
            assert len(batches[-1]) == batch
        shapes.append([len(keys) for keys in batches])
        seen += [key[1] for keys in batches for key in keys]
    assert all(shape == shapes[0] for shape in shapes)
    if not drop and not balanced:
        assert set(seen) == set(range(count))
        assert len(seen) - count < world
    if drop and not balanced and count >= world:
        assert len(seen) == len(set(seen))


@given(st.integers(1, 50), st.integers(1, 8), st.integers(0, 3), st.data())
@settings(max_examples=80)
def test_resuming_at_any_batch_gives_exactly_the_rest(count, batch, epoch, data):
    sampler = EpochSampler([0] * count, batch, 11)
    sampler.set_position(epoch)
    whole = list(sampler)
    start = data.draw(st.integers(0, len(whole)))
    resumed = EpochSampler([0] * count, batch, 11)
    resumed.set_position(epoch, start)
    assert list(resumed) == whole[start:]
    assert len(resumed) == len(whole)
    resumed.set_position(epoch + 1)
    assert len(list(resumed)) == len(whole)


def test_epochs_and_seeds_have_different_orders():
    def order(seed, epoch):
        return tuple(EpochSampler([0] * 50, 5, seed).order(epoch))

    assert len({order(s, e) for s in range(5) for e in range(5)}) == 25


def test_balanced_draws_classes_equally():
    labels = [0] * 900 + [1] * 90 + [2] * 10
    sampler = EpochSampler(labels, 100, 1, balanced=True)
    drawn = np.bincount([labels[i] for epoch in range(5) for i in sampler.order(epoch)], minlength=3)
    assert drawn.sum() == 5000
    assert np.abs(drawn / 5000 - 1 / 3).max() < 0.03


def test_a_set_smaller_than_a_batch_gives_one_batch():
    for drop in (False, True):
        assert [len(keys) for keys in EpochSampler([0, 1, 0], 64, 0, drop_last=drop)] == [3]


def test_without_shuffling_the_order_is_that_of_the_data():
    assert [i for keys in EpochSampler([0] * 7, 3, 0, shuffle=False) for _, i in keys] == list(range(7))


def test_impossible_positions_are_explained():
    with pytest.raises(UserError, match=r"batch 9 of epoch 0.*2 batches"):
        EpochSampler([0] * 8, 4).set_position(0, 9)


# ------------------------------------------------------------------------------------------------------- dataset


def test_a_sample_is_a_function_of_seed_epoch_and_index_only():
    split = array_split()
    transform = TrainTransform(PRE, Augmentation(auto_augment="trivialaugment"))
    first = IndexedDataset(split, transform, 1)
    again = IndexedDataset(split, transform, 1)
    keys = [(e, i) for e in range(3) for i in range(10)]
    wanted = {key: first[key][0] for key in keys}
    random.Random(0).shuffle(keys)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert all(torch.equal(again[key][0], wanted[key]) for key in keys)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(wanted[0, 3], wanted[1, 3])
    other = IndexedDataset(split, transform, 2)
    assert sum(torch.equal(other[key][0], wanted[key]) for key in keys) < 5


def test_evaluation_is_the_preprocessing():
    split = array_split()
    image, label = IndexedDataset(split, PRE)[7]
    assert torch.equal(image, PRE(split.read(7)))
    assert label == 3


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 on, about torch's threads
@pytest.mark.parametrize("room", [0, 1 << 40])
def test_batches_go_through_pipes_where_shared_memory_is_small(room, monkeypatch, tmp_path, caplog):
    """As in a container with its usual 64 MB, where a loader process would be killed by a bus error."""
    monkeypatch.setattr(workers, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(workers.os, "statvfs", lambda place: SimpleNamespace(f_bavail=room, f_frsize=1))
    workers._warn.cache_clear()
    split = array_split()
    dataset = IndexedDataset(split, TrainTransform(PRE, Augmentation()), 5)
    alone = list(make_loader(dataset, EpochSampler(split.labels, 7, 5)))
    assert not caplog.records
    for _ in range(2):  # of training and of validation
        loader = make_loader(dataset, EpochSampler(split.labels, 7, 5), 2)
        shared = [
            (images.is_shared(), torch.equal(images, known))
            for (images, _), (known, _) in zip(loader, alone, strict=True)
        ]
        assert shared == [(room > 0, True)] * len(alone)
        loader.close()
    assert ["go through pipes" in each.getMessage() for each in caplog.records] == [True] * (room == 0)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 on, about torch's threads
def test_batches_do_not_depend_on_the_number_of_workers():
    split = array_split()
    results = []
    for count in (0, 2):
        sampler = EpochSampler(split.labels, 7, 5)
        sampler.set_position(2, 1)
        dataset = IndexedDataset(split, TrainTransform(PRE, Augmentation()), 5)
        results.append(list(make_loader(dataset, sampler, count)))
        assert len(results[-1]) == len(sampler) - 1
    assert results[0][0][0].shape == (7, 1, 8, 8)
    assert results[0][0][1].dtype == torch.int64
    for (images, labels), (others, other_labels) in zip(*results, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, other_labels)


# ---------------------------------------------------------------------------------------------- unreadable files


def test_an_unreadable_image_is_replaced_by_the_next_of_its_class_and_logged_once(files, caplog):
    spoil(files, 1, 2)
    dataset = IndexedDataset(files, PRE)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            image, label = dataset[0, 1]
            assert label == 0
            assert torch.equal(image, PRE(files.read(3)))
            image, _ = dataset[0, 2]
            assert torch.equal(image, PRE(files.read(3)))
    assert len(caplog.records) == 2
    assert set(dataset.replaced) == {"1.png", "2.png"}
    assert "is not an image" in dataset.replaced["1.png"]


def test_the_replacement_goes_round_the_end_and_then_to_other_classes(files):
    spoil(files, 11)
    dataset = IndexedDataset(files, PRE)
    assert dataset[11][1] == 2
    assert torch.equal(dataset[11][0], PRE(files.read(8)))
    spoil(files, 8, 9, 10)
    image, label = IndexedDataset(files, PRE)[11]
    assert label == 0
    assert torch.equal(image, PRE(files.read(0)))


def test_a_run_goes_on_when_files_break_half_way(files):
    dataset = IndexedDataset(files, TrainTransform(PRE, Augmentation()), 0)
    sampler = EpochSampler(files.labels, 4, 0)
    whole = list(make_loader(dataset, sampler))
    spoil(files, 0, 5, 6)
    files.path(9).unlink()
    assert [images.shape for images, _ in make_loader(dataset, sampler)] == [images.shape for images, _ in whole]


def test_when_nothing_can_be_read_that_is_an_error(files):
    spoil(files, *range(12))
    with pytest.raises(UserError, match="none of the 12 images"):
        IndexedDataset(files, PRE)[0]


def test_verify_drops_and_lists(files):
    good, problems = verify(files)
    assert good is files
    assert problems == ()
    spoil(files, 3, 7)
    files.path(8).write_bytes(b"")
    good, problems = verify(files)
    kinds = [(Path(problem.name).name, problem.kind) for problem in problems]
    assert kinds == [("3.png", "not-an-image"), ("7.png", "not-an-image"), ("8.png", "empty")]
    assert len(good) == 9
    assert "3.png" not in good.ids
    assert good.read(3).getpixel((0, 0)) == 40
    assert good.labels == (0, 0, 0, 1, 1, 1, 2, 2, 2)
    spoil(files, 4, 5, 6)
    with pytest.raises(UserError, match="1 class"):
        verify(files)


# --------------------------------------------------------------------------------------------- weights and cache


def test_class_weights():
    assert torch.allclose(class_weights([0, 0, 0, 1], 2), torch.tensor([0.5, 1.5]))
    assert class_weights([0, 0, 2, 2], 3).tolist() == [1.0, 0.0, 1.0]
    weights = class_weights([0] * 10 + [1] * 5 + [2], 3)
    assert weights.mean().item() == pytest.approx(1)
    assert (weights * torch.tensor([10.0, 5.0, 1.0])).std().item() == pytest.approx(0, abs=1e-5)


def test_the_cache_gives_the_same_images_within_its_budget(files):
    cached = cache(files, 5 * 64)
    expected = [files.read(i).tobytes() for i in range(12)]
    assert [cached.read(i).tobytes() for i in range(12)] == expected
    for i in range(12):
        files.path(i).unlink()
    assert [cached.read(i).tobytes() for i in range(5)] == expected[:5]
    with pytest.raises(UnreadableImage):
        cached.read(5)
    assert cached.select([4, 2]).read(1).tobytes() == expected[2]
    assert cached.path(3) == files.path(3)
