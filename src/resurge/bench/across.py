"""Across runtimes: our fastest against the fastest there is, and against what most people run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from resurge.bench.cells import Bench, Row, described, speed
from resurge.bench.contestants import Contestant, ours
from resurge.bench.peers import Peer, plain_eager, settings_of
from resurge.bench.settings import Cell
from resurge.bench.subjects import Subject
from resurge.errors import UserError
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
    peer, cell = bench.peer(subject), cell_of(mine)
    if not isinstance(peer, Peer):
        return None
    job = bench.job(subject, cell_of(theirs))
    makers = dict(settings_of(peer, subject, job, bench.files))
    other = makers[theirs["peer_setting"]]()
    own = ours(subject, bench.job(subject, cell), bench.files)
    said |= {key: value for key, value in theirs.items() if key.startswith("peer_")} | {"settings": theirs["settings"]}
    return {**said, "peer_runtime": theirs["runtime"], **_raced(bench, own, other, cell)}


def plain_row(bench: Bench, subject: Subject, rows: Sequence[Row]) -> Row | None:
    """Our fastest runtime against the peer in eager fp32 as it comes; None without a peer.

    Args:
        rows: as for `best_row`.
    """
    peer = bench.peer(subject)
    if not rows or not isinstance(peer, Peer):
        return None
    mine = fastest(rows)
    cell = cell_of(mine)
    job = bench.job(subject, cell)
    own, other = ours(subject, job, bench.files), plain_eager(peer.net, job)
    return {
        **described(subject, job, bench.settings.rounds),
        "runtime": "plain",
        "our_runtime": mine["runtime"],
        "peer": str(peer),
        "peer_runtime": "eager",
        "peer_setting": "fp32, contiguous",
        **_raced(bench, own, other, cell),
        "efficiency": None,
        "notes": list(own.notes),
    }


def agreement(bench: Bench, subject: Subject, cell: Cell, pictures: str, limit: int | None = None) -> Row:
    """How often our network, deployed, decides on photographs as the peer (without one, itself) in eager fp32.

    Args:
        pictures: a folder, as `resurge.export.calibration.gather` takes it.
        limit: pictures at most; None for all.

    Returns:
        {"model", "runtime", "precision", "pictures", "same", "agreement", "random_weights"}.

    Raises:
        UserError: there are no pictures, or the network cannot be run.
    """
    if subject.run is None:
        raise UserError(f"{subject.name} is an export; its own certificate says how often it decides as the run did.")
    few = Cell(cell.runtime, cell.precision, bench.settings.batches[-1])
    own = ours(subject, bench.job(subject, few), bench.files)
    peer = bench.peer(subject)
    net = peer.net if isinstance(peer, Peer) else subject.run.model
    other = plain_eager(net, bench.job(subject, few))
    measured = subject.pictures(pictures)
    same = total = 0
    for batch in measured.few(limit or len(measured)).batches(subject.preprocessing(), few.batch):
        images, missing = batch.images, few.batch - len(batch.images)
        if missing:  # what is of fixed shape takes full batches only
            images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.float32)])
        count = len(batch.images)
        same += int((own.ask(images)[:count].argmax(1) == other.ask(images)[:count].argmax(1)).sum())
        total += count
    if not total:
        raise UserError(f"none of the pictures in {pictures} can be read. Name another folder.")
    return {
        "model": subject.name,
        "runtime": few.runtime,
        "precision": few.precision,
        "compared_with": str(peer) if isinstance(peer, Peer) else "itself in eager fp32",
        "pictures": total,
        "same": same,
        "agreement": same / total,
        "random_weights": not subject.trained,
    }


def fastest(rows: Sequence[Row]) -> Row:
    """The row in which ours is fastest."""
    return max(rows, key=lambda row: float(row["images_per_s"]))


def cell_of(row: Row) -> Cell:
    """What a row was measured in."""
    return Cell(row["our_runtime"] if "our_runtime" in row else row["runtime"], row["precision"], row["batch"])


def _raced(bench: Bench, own: Contestant, other: Contestant, cell: Cell) -> Row:
    runs = {"ours": own.run, "theirs": other.run}
    raced = timing.race(runs, bench.settings.rounds, slot=timing.SLOT, pause=timing.PAUSE)
    return {
        **raced.ratio("theirs", "ours").to_json(),
        "images_per_s": speed(raced, "ours", cell),
        "peer_images_per_s": speed(raced, "theirs", cell),
    }
