"""Our fastest runtime against the baseline's fastest, and against eager fp32, which most people run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from torch import nn

from resurge.bench.baselines import Baseline, settings_of
from resurge.bench.candidates import Candidate, Workload, in_torch, ours
from resurge.bench.measuring import Bench, speed
from resurge.bench.output import Row
from resurge.bench.settings import Configuration
from resurge.bench.subjects import Subject
from resurge.errors import UserError
from resurge.export.calibration import gather
from resurge.optimize import timing


def best_row(bench: Bench, subject: Subject, rows: Sequence[Row]) -> Row | None:
    """Our fastest runtime against the peer's fastest, run in turn; None without a peer.

    Args:
        rows: what was measured of this network in one precision and batch.
    """
    raced = [row for row in rows if row["peer_images_per_s"] is not None]
    if not raced:
        return None
    mine, theirs = fastest(raced), max(raced, key=lambda row: float(row["peer_images_per_s"]))
    said = {**mine, "runtime": "best", "our_runtime": mine["runtime"], "peer_runtime": theirs["runtime"]}
    if mine["runtime"] == theirs["runtime"]:
        return said
    baseline, configuration = bench.baseline(subject), configuration_of(mine)
    if not isinstance(baseline, Baseline):
        return None
    work = bench.workload(subject, configuration_of(theirs))
    makers = dict(settings_of(baseline, subject, work, bench.files))
    other = makers[theirs["peer_setting"]]()
    own = ours(subject, bench.workload(subject, configuration), bench.files)
    said |= {key: value for key, value in theirs.items() if key.startswith("peer_")} | {"settings": theirs["settings"]}
    return {**said, "peer_runtime": theirs["runtime"], **_raced(bench, own, other, configuration)}


def plain_row(bench: Bench, subject: Subject, rows: Sequence[Row]) -> Row | None:
    """Our fastest runtime against the peer in eager fp32 as it comes; None without a peer.

    Args:
        rows: as for `best_row`.
    """
    baseline = bench.baseline(subject)
    if not rows or not isinstance(baseline, Baseline):
        return None
    mine = fastest(rows)
    configuration = configuration_of(mine)
    work = bench.workload(subject, configuration)
    own, other = ours(subject, work, bench.files), _plain_eager(baseline.net, work)
    return {
        **bench.described(subject, work),
        "runtime": "plain",
        "our_runtime": mine["runtime"],
        "peer": str(baseline),
        "peer_runtime": "eager",
        "peer_setting": "fp32, contiguous",
        **_raced(bench, own, other, configuration),
        "efficiency": None,
        "notes": list(own.notes),
    }


def agreement(
    bench: Bench, subject: Subject, configuration: Configuration, pictures: str, limit: int | None = None
) -> Row:
    """How often our network, deployed, decides on photographs as the peer (without one, itself) in eager fp32.

    Args:
        pictures: a folder, as `resurge.export.calibration.gather` takes it.
        limit: pictures at most; None for all.

    Returns:
        {"model", "runtime", "precision", "pictures", "same", "agreement", "random_weights"}.

    Raises:
        UserError: there are no pictures, or the network cannot be run.
    """
    if subject.export is not None:
        raise UserError(f"{subject.name} is an export; its own certificate says how often it decides as the run did.")
    few = Configuration(configuration.runtime, configuration.precision, bench.settings.batches[-1])
    own = ours(subject, bench.workload(subject, few), bench.files)
    baseline = bench.baseline(subject)
    net = baseline.net if isinstance(baseline, Baseline) else subject.run.model
    other = _plain_eager(net, bench.workload(subject, few))
    measured = gather(subject.run, pictures).measured
    same = total = 0
    for batch in subject.batches(measured.few(limit or len(measured)), few.batch):
        images, missing = batch.images, few.batch - len(batch.images)
        if missing:  # what is of fixed shape takes full batches only
            images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.float32)])
        count = len(batch.images)
        same += int((own.predict(images)[:count].argmax(1) == other.predict(images)[:count].argmax(1)).sum())
        total += count
    if not total:
        raise UserError(f"none of the pictures in {pictures} can be read. Name another folder.")
    return {
        "model": subject.name,
        "runtime": few.runtime,
        "precision": few.precision,
        "compared_with": str(baseline) if isinstance(baseline, Baseline) else "itself in eager fp32",
        "pictures": total,
        "same": same,
        "agreement": same / total,
        "random_weights": not subject.trained,
    }


def _plain_eager(net: nn.Module, work: Workload) -> Candidate:
    """A network as most people run it: eager fp32 as it comes, whatever the precision of the workload."""
    configuration = Configuration("eager", "fp32", work.configuration.batch)
    return in_torch(net, dataclasses.replace(work, configuration=configuration), layout="contiguous")


def fastest(rows: Sequence[Row]) -> Row:
    """The row in which ours is fastest."""
    return max(rows, key=lambda row: float(row["images_per_s"]))


def configuration_of(row: Row) -> Configuration:
    """What a row was measured in."""
    return Configuration(row["our_runtime"] if "our_runtime" in row else row["runtime"], row["precision"], row["batch"])


def _raced(bench: Bench, own: Candidate, other: Candidate, configuration: Configuration) -> Row:
    runs = {"ours": own.run, "theirs": other.run}
    raced = timing.race(runs, bench.settings.rounds, slot=timing.SLOT, pause=timing.PAUSE)
    return {
        **raced.ratio("theirs", "ours").to_json(),
        "images_per_s": speed(raced, "ours", configuration),
        "peer_images_per_s": speed(raced, "theirs", configuration),
    }
