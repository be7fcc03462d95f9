"""Labels at what they name instead of a legend: each goes where it covers the least, with a thin leader once it had to move away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from e2urec_core.report.canvas import GREY, printable


@dataclass(frozen=True)
class Label:
    """A text that belongs to the point (x, y) in the units of the data."""

    text: str
    x: float
    y: float
    colour: str


def place_labels(axes: Any, labels: Sequence[Label], avoid: np.ndarray) -> None:
    """Write each label near its point, off the other labels, inside the axes and off the drawn points `avoid` (pixels, n x 2)."""
    axes.figure.draw_without_rendering()
    frame = axes.get_window_extent()
    points = [axes.transData.transform((label.x, label.y)) for label in labels]
    sizes = [_size(axes, label) for label in labels]
    places: dict[int, np.ndarray] = {}
    for crowd in _crowds(points):
        places.update(_column(crowd, points, sizes, frame))
    for index in [index for index in range(len(labels)) if index not in places]:
        taken = [_box(points[other] + place, sizes[other]) for other, place in places.items()]
        offsets = list(_candidates(sizes[index]))
        costs = [_cost(points[index], offset, sizes[index], taken=taken, avoid=avoid, frame=frame) for offset in offsets]
        # Among equals the earlier candidate wins, which stands to the right.
        places[index] = offsets[int(np.argmin(np.array(costs) + 0.3 * np.arange(len(offsets))))]
        if _is_far(places[index], sizes[index]):
            avoid = np.concatenate([avoid, _leader(points[index], places[index])])
    for index, place in places.items():
        _note(axes, labels[index], (float(place[0]), float(place[1])), led_from=_near_edge(place, sizes[index]))


def _size(axes: Any, label: Label) -> np.ndarray:
    """Width and height of a label in pixels."""
    note = _note(axes, label, (0.0, 0.0))
    extent = note.get_window_extent(axes.figure.canvas.get_renderer())
    note.remove()
    return np.array([extent.width, extent.height])


def _crowds(points: Sequence[np.ndarray]) -> list[list[int]]:
    """Chains of at least four points, each within 14 pixels of another: more than fit around one spot."""
    crowds: list[list[int]] = []
    for index, point in enumerate(points):
        near = [crowd for crowd in crowds if any(np.hypot(*(points[other] - point)) < 14 for other in crowd)]
        crowds = [crowd for crowd in crowds if crowd not in near] + [sorted([index, *(other for crowd in near for other in crowd)])]
    return [crowd for crowd in crowds if len(crowd) > 3]


def _column(crowd: Sequence[int], points: Sequence[np.ndarray], sizes: Sequence[np.ndarray], frame: Any) -> dict[int, np.ndarray]:
    """The labels of a crowd in a column beside it, in the order of its points from the bottom up, so that no leaders cross."""
    xs = [points[index][0] for index in crowd]
    side = 1 if np.mean(xs) < (frame.x0 + frame.x1) / 2 else -1
    edge = max(xs) + 36 if side > 0 else min(xs) - 36
    order = sorted(crowd, key=lambda index: (points[index][1], -side * points[index][0]))
    heights = spread_apart(np.array([points[index][1] for index in order]), gap=13.0)
    heights = heights + max(0.0, frame.y0 + 8 - heights[0]) - max(0.0, heights[-1] - frame.y1 + 8)
    return {index: np.array([edge + side * sizes[index][0] / 2, y]) - points[index] for index, y in zip(order, heights, strict=True)}


def _candidates(size: np.ndarray) -> Iterator[np.ndarray]:
    """Offsets of a label's centre: to the right first, then around, then farther out."""
    for radius in (9.0, 15.0, 22.0, 32.0, 44.0, 58.0, 76.0, 98.0):
        for degrees in (0, 180, 90, 270, 35, 145, 325, 215, 65, 115, 295, 245):
            towards = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
            yield towards * radius + np.sign(towards.round(6)) * size / 2


def _is_far(offset: np.ndarray, size: np.ndarray) -> bool:
    """Whether a label needs a leader."""
    return _gap(offset, size) > 16


def _gap(offset: np.ndarray, size: np.ndarray) -> float:
    """Pixels between a label's edge and its point."""
    return float(np.hypot(*np.maximum(np.abs(offset) - size / 2, 0)))


def _box(centre: np.ndarray, size: np.ndarray) -> np.ndarray:
    return np.array([centre - size / 2 - 2, centre + size / 2 + 2])


def _leader(point: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Pixels on the way from a point to its label's centre; those next to the point are left out, where leaders meet."""
    return np.asarray(point + np.linspace(0.1, 1, 24)[:, None] * offset)


def _cost(point: np.ndarray, offset: np.ndarray, size: np.ndarray, *, taken: Sequence[np.ndarray], avoid: np.ndarray, frame: Any) -> float:
    """How bad a place is: covering a label or leaving the axes is worst, then covering what is drawn, then distance."""
    low, high = _box(point + offset, size)
    leader = _leader(point, offset)
    clashes = sum(bool(np.all(low < other[1]) and np.all(other[0] < high)) for other in taken)
    clashes += sum(bool(np.any(np.all((leader > other[0]) & (leader < other[1]), axis=1))) for other in taken)
    outside = low[0] < frame.x0 + 2 or low[1] < frame.y0 + 2 or high[0] > frame.x1 + 2 or high[1] > frame.y1 + 2
    covered = int(np.sum(np.all((avoid > low) & (avoid < high), axis=1))) if len(avoid) else 0
    return 1000.0 * clashes + 1000.0 * bool(outside) + 30.0 * min(covered, 20) + _gap(offset, size)


def _near_edge(offset: np.ndarray, size: np.ndarray) -> tuple[float, float] | None:
    """Where on a label its leader begins, as shares of width and height; None where it needs no leader."""
    if not _is_far(offset, size):
        return None
    beside = np.abs(offset) > size / 2
    across = (0.0 if offset[0] > 0 else 1.0) if beside[0] else 0.5
    return across, 0.5 if beside[0] else (0.0 if offset[1] > 0 else 1.0)


def _note(axes: Any, label: Label, offset: tuple[float, float], *, led_from: tuple[float, float] | None = None) -> Any:
    line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.7, "shrinkA": 2, "shrinkB": 4, "relpos": led_from}
    note = axes.annotate(
        printable(label.text),
        (label.x, label.y),
        xytext=offset,
        textcoords="offset points",
        ha="center",
        va="center",
        color=label.colour,
        annotation_clip=False,
        arrowprops=line if led_from else None,
        zorder=5,
    )
    note.set_in_layout(False)
    return note


def place_at_ends(axes: Any, labels: Sequence[Label]) -> None:
    """Write each label to the right of its line's end, pushed apart where ends nearly meet."""
    axes.figure.draw_without_rendering()
    order = sorted(labels, key=lambda label: label.y)
    wanted = np.array([axes.transData.transform((label.x, label.y))[1] for label in order])
    placed = spread_apart(wanted, gap=12.0)
    for label, at, end in zip(order, placed, wanted, strict=True):
        axes.annotate(
            printable(label.text),
            (label.x, label.y),
            xytext=(10.0, float(at - end)),
            textcoords="offset points",
            ha="left",
            va="center",
            color=label.colour,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 1, "relpos": (0, 0.5)},
        )


def spread_apart(wanted: np.ndarray, *, gap: float) -> np.ndarray:
    """The nearest places (least squares) to the rising places `wanted` with at least `gap` between neighbours.

    >>> spread_apart(np.array([0.0, 1.0, 40.0]), gap=10.0).tolist()
    [-4.5, 5.5, 40.0]
    """
    # With the gaps taken off, places must only not fall: pool neighbours that do into their mean.
    steps = gap * np.arange(len(wanted))
    pools: list[list[float]] = []
    for place in wanted - steps:
        pools.append([float(place)])
        while len(pools) > 1 and np.mean(pools[-2]) >= np.mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    return np.array([np.mean(pool) for pool in pools for _ in pool]) + steps
