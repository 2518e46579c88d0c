"""Scenes are fed as pure functions of (seed, epoch, index), past unreadable files, and through memory."""

import logging
import pickle
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scene_files import no_objects

from resurge.data.augmentation import Augmentation
from resurge.data.images import UnreadableImage, open_image
from resurge.data.loading import EpochSampler, SceneDataset, cache, collate_scenes, verify
from resurge.data.preprocessing import ScenePreprocessing
from resurge.data.splits import FileImages, MaskSplit, Objects, ObjectSplit
from resurge.data.workers import make_loader
from resurge.errors import UserError

PRE = ScenePreprocessing(24, 40, (0.5,), (0.5,), 1)
AUGMENT = Augmentation(short_sides=(16, 24), scale_jitter=(0.5, 1.5), rotate90=True, vflip=0.5, color_jitter=0.3)
COUNT, WIDTH, HEIGHT = 12, 40, 30


@dataclass(frozen=True)
class FileRegion:
    path: Path

    def decode(self, height, width):
        return np.asarray(open_image(self.path)) > 0


@dataclass(frozen=True)
class FileMaps:
    paths: tuple[Path, ...]

    def read(self, index: int) -> np.ndarray:
        return np.asarray(open_image(self.paths[index]))

    def path(self, index: int) -> Path:
        return self.paths[index]

    def select(self, indices: Sequence[int]):
        return FileMaps(tuple(self.paths[i] for i in indices))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Pictures i.png, and a mask mi.png with a rectangle in each; every third picture has no object."""
    draws = np.random.default_rng(0)
    for i in range(COUNT):
        Image.fromarray(draws.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[5:25, 6 : 20 + i] = 1
        Image.fromarray(mask).save(tmp_path / f"m{i}.png")
    return tmp_path


def images(folder) -> tuple[tuple[str, ...], FileImages]:
    names = tuple(f"{i}.png" for i in range(COUNT))
    return names, FileImages(folder, names)


@pytest.fixture
def objects(folder) -> ObjectSplit:
    def one(i):
        if i % 3 == 0:
            return no_objects()
        box = np.array([[6, 5, 20 + i, 25]], np.float32)
        area = np.array([20.0 * (14 + i)], np.float32)
        return Objects(box, np.array([i]), np.array([False]), area, (FileRegion(folder / f"m{i}.png"),))

    names, pictures = images(folder)
    return ObjectSplit(names, pictures, tuple(one(i) for i in range(COUNT)), tuple(range(100, 100 + COUNT)))


@pytest.fixture
def maps(folder) -> MaskSplit:
    names, pictures = images(folder)
    return MaskSplit(names, pictures, FileMaps(tuple(folder / f"m{i}.png" for i in range(COUNT))))


@pytest.fixture(params=["boxes", "masks", "maps"])
def scenes(request, objects, maps):
    """(annotation, split) of each kind."""
    return request.param, maps if request.param == "maps" else objects


def same(first, second) -> bool:
    (image, target, index), (other, other_target, other_index) = first, second
    targets = target.keys() == other_target.keys() and all(torch.equal(target[k], other_target[k]) for k in target)
    return torch.equal(image, other) and targets and index == other_index


def spoil(folder, *names) -> None:
    for name in names:
        (folder / name).write_bytes(b"no longer an image")


# ------------------------------------------------------------------------------------------------------- repeatable


def test_a_sample_is_a_function_of_seed_epoch_and_index_only(scenes):
    annotation, split = scenes
    first, again = (SceneDataset(split, PRE, AUGMENT, 1, annotation=annotation) for _ in range(2))
    keys = [(epoch, index) for epoch in range(3) for index in range(COUNT)]
    wanted = {key: first[key] for key in keys}
    random.Random(0).shuffle(keys)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert all(same(again[key], wanted[key]) for key in keys)
    assert torch.equal(torch.get_rng_state(), state)
    assert not same(wanted[0, 4], wanted[1, 4])
    assert same(first[5], wanted[0, 5])
    other = SceneDataset(split, PRE, AUGMENT, 2, annotation=annotation)
    assert sum(same(other[key], wanted[key]) for key in keys) < 5


def test_a_dataset_travels_to_other_processes(scenes):
    annotation, split = scenes
    dataset = SceneDataset(split, PRE, AUGMENT, 1, annotation=annotation)
    assert same(pickle.loads(pickle.dumps(dataset))[2, 4], dataset[2, 4])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 on, about torch's threads
def test_batches_do_not_depend_on_the_number_of_workers(scenes):
    annotation, split = scenes
    results = []
    for workers in (0, 2):
        sampler = EpochSampler(split.labels, 5, 3)
        sampler.set_position(2, 1)
        dataset = SceneDataset(split, PRE, AUGMENT, 3, annotation=annotation)
        results.append(list(make_loader(dataset, sampler, workers, collate_fn=collate_scenes)))
    assert [len(result) for result in results] == [2, 2]
    for batch, other in zip(*results, strict=True):
        assert torch.equal(batch.images, other.images)
        assert batch.images.shape[-2] % 32 == batch.images.shape[-1] % 32 == 0
        assert batch.sizes == other.sizes
        assert torch.equal(batch.indices, other.indices)
        for target, wanted in zip(batch.targets, other.targets, strict=True):
            assert target.keys() == wanted.keys()
            assert all(torch.equal(target[key], wanted[key]) for key in target)


def test_evaluation_is_the_preprocessing_with_its_target(objects, maps):
    image, target, index = SceneDataset(objects, PRE, annotation="masks")[7]
    assert index == 7
    assert torch.equal(image, PRE(objects.read(7)))
    factor = 24 / HEIGHT
    assert torch.allclose(target["boxes"], torch.tensor([[6, 5, 27, 25]]) * factor)
    assert target["labels"].tolist() == [7]
    assert target["masks"].shape == (1, 24, 32)
    image, target, _ = SceneDataset(maps, PRE, annotation="maps")[7]
    assert torch.equal(image, PRE(maps.read(7)))
    assert target["mask"].shape == image.shape[1:]
    assert target["mask"].unique().tolist() == [0, 1]


def test_an_epoch_without_any_object_is_fed(objects):
    split = objects.select(range(0, COUNT, 3))
    dataset = SceneDataset(split, PRE, AUGMENT, 0, annotation="masks")
    for batch in make_loader(dataset, EpochSampler(split.labels, 2), collate_fn=collate_scenes):
        assert all(target["boxes"].shape == (0, 4) for target in batch.targets)
        assert [target["masks"].shape[1:] for target in batch.targets] == list(batch.sizes)


# ---------------------------------------------------------------------------------------------- unreadable files


def test_an_unreadable_image_is_replaced_by_the_next_and_logged_once(scenes, folder, caplog):
    annotation, split = scenes
    spoil(folder, "4.png", "5.png", "11.png")
    dataset = SceneDataset(split, PRE, annotation=annotation)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert same(dataset[0, 4], dataset[6])
            assert same(dataset[11], dataset[0])
    assert dataset[4][2] == 6
    assert len(caplog.records) == 3
    assert set(dataset.replaced) == {"4.png", "5.png", "11.png"}


@pytest.mark.parametrize("annotation", ["masks", "maps"])
def test_so_is_one_whose_mask_is_unreadable(objects, maps, folder, annotation):
    spoil(folder, "m4.png")
    split = maps if annotation == "maps" else objects
    dataset = SceneDataset(split, PRE, AUGMENT, annotation=annotation)
    state = torch.get_rng_state()
    assert dataset[4][2] == 5
    assert torch.equal(torch.get_rng_state(), state)
    assert "m4.png" in dataset.replaced["4.png"]
    assert SceneDataset(objects, PRE, annotation="boxes")[4][2] == 4  # needs no masks


def test_when_nothing_can_be_read_that_is_an_error(objects, folder):
    spoil(folder, *(f"{i}.png" for i in range(COUNT)))
    with pytest.raises(UserError, match="none of the 12 images"):
        SceneDataset(objects, PRE)[0]


def test_a_label_map_of_another_size_is_named_and_replaced(maps, folder):
    Image.new("L", (WIDTH, HEIGHT + 1)).save(folder / "m3.png")
    data = SceneDataset(maps, PRE, annotation="maps")
    assert data[3][2] == 4
    (problem,) = data.replaced.values()
    assert re.search(r"3\.png: .*40 x 31.*40 x 30", problem)


# ------------------------------------------------------------------------------------------- verify and cache


def test_verify_drops_and_lists(scenes, folder):
    annotation, split = scenes
    assert verify(split) == (split, ())
    spoil(folder, "3.png", "m7.png")
    good, problems = verify(split)
    assert type(good) is type(split)
    bad = ["3.png", "7.png"] if annotation == "maps" else ["3.png"]  # regions are decoded when they are needed
    assert [Path(problem.name).name.replace("m7", "7") for problem in problems] == bad
    assert good.ids == tuple(id for id in split.ids if id not in bad)
    image, target, _ = SceneDataset(good, PRE, annotation=annotation)[3]
    assert same((image, target, 4), SceneDataset(split, PRE, annotation=annotation)[4])
    spoil(folder, *(f"{i}.png" for i in range(COUNT)))
    with pytest.raises(UserError, match="can be read"):
        verify(split)


def test_the_cache_gives_the_same_samples_within_its_budget(scenes, folder):
    annotation, split = scenes
    cached = cache(split, 5 * WIDTH * HEIGHT)
    assert type(cached) is type(split)
    plain, held = (SceneDataset(s, PRE, AUGMENT, 4, annotation=annotation) for s in (split, cached))
    assert all(same(plain[2, i], held[2, i]) for i in range(COUNT))
    wanted = [plain[2, i] for i in range(5)]
    for i in range(COUNT):
        (folder / f"{i}.png").unlink()
    assert all(same(held[2, i], wanted[i]) for i in range(5))
    with pytest.raises(UnreadableImage):
        cached.read(5)
    assert cached.select([4, 2]).ids == ("4.png", "2.png")
    assert cached.path(3) == split.path(3)
