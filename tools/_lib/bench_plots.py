"""The two figures of README, drawn from the rows of tools/bench."""

import os

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

INK, OURS, OTHERS = (
    "#333333",
    "#c0392b",
    ("#1f77b4", "#2ca02c", "#8c6bb1", "#7f7f7f", "#bc8f2f", "#17a2a2", "#e377c2", "#111111"),
)
SHOWN = (
    "FileHandler", "QueueHandler", "lastwords", "bare INSERT", "python-logstash-async", "litequeue", "loguru, enqueue",
    "persist-queue", "FileHandler + fdatasync",
)  # fmt: skip


def draw(rows, folder):
    """Draw what the rows have the numbers for; the paths of the files."""
    os.makedirs(folder, exist_ok=True)
    plt.rcParams.update(
        {"svg.fonttype": "path", "svg.hashsalt": "lastwords", "font.size": 10, "axes.edgecolor": INK, "text.color": INK}
    )
    paths = []
    parts = {}
    for row in rows:
        if row.what.startswith("one call, beside "):
            parts |= row.details
    for row in rows:
        if row.what == "one call, committed":
            paths.append(_latencies(row.details, parts, os.path.join(folder, "latencies.svg")))
        if "sizes" in row.details and "rivals" in row.details and row.what.startswith("insert"):
            paths.append(_backlog(row.details, os.path.join(folder, "backlog.svg")))
    return paths


def _finish(figure, path):
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path


def _style(axes, title):
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _latencies(details, parts, path):
    """Percentiles to the right, time upwards on a log scale; below it, what one call is made of."""
    figure, (axes, bars) = plt.subplots(2, 1, figsize=(8, 6), height_ratios=(4.6, 1.1))
    shares = [*(i / 10 for i in range(0, 1000, 5)), 99.9]
    colours = iter(OTHERS * 2)
    ends = []
    for name in (name for name in SHOWN if name in details):
        values = details[name]["percentiles_us"]
        ours = name == "lastwords"
        colour = OURS if ours else next(colours)
        # The last percent is as wide as the first half: that is where a handler hurts.
        places = [_stretch(share) for share in shares]
        axes.plot(places, values, color=colour, linewidth=2.4 if ours else 1.3, zorder=3 if ours else 2)
        ends.append([values[-1], name, colour])
    axes.set_yscale("log")
    _label_ends(axes, ends, _stretch(99.9))
    ticks = [0, 50, 90, 99, 99.9]
    axes.set_xticks([_stretch(tick) for tick in ticks], ["%g %%" % tick for tick in ticks])
    axes.set_xlim(0, _stretch(99.9) * 1.45)
    axes.set_xlabel("of the calls take at most")
    axes.set_ylabel("microseconds")
    _style(axes, "One logging call, nothing delivering")
    _stack(bars, parts, details["FileHandler, formatted"]["p50_us"])
    return _finish(figure, path)


def _stack(axes, parts, file_us):
    """The median call, and the parts that it cannot do without; beside it a FileHandler's.

    What is ours is a difference within rounds: of two medians of a whole run it could be less than nothing.
    """
    logging_us, insert_us, rest = parts["logging_us"], parts["insert_us"], max(0.0, parts["gap_us"])
    codec_us = max(0.0, parts["whole_us"] - logging_us - insert_us - rest)
    left = 0.0
    for name, width, colour in (
        ("logging", logging_us, "#7f7f7f"), ("INSERT of a ready row", insert_us, "#bc8f2f"),
        ("the codec, and all three in one call", codec_us, "#e8a598"), ("the rest of lastwords", rest, OURS),
    ):  # fmt: skip
        axes.barh("lastwords", width, left=left, color=colour, label="%s %.1f" % (name, width))
        left += width
    axes.barh("FileHandler, formatted", logging_us, color="#7f7f7f")
    axes.barh("FileHandler, formatted", max(0.0, file_us - logging_us), left=logging_us, color=OTHERS[0])
    axes.set_xlabel("microseconds, median")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _stretch(share):
    import math

    return -math.log10(1 - min(share, 99.95) / 100)


def _label_ends(axes, ends, place):
    """Names at the ends of the lines, moved apart where they would lie on one another."""
    import math

    ends.sort()
    low = -math.inf
    for end in ends:
        end[0] = max(math.log10(end[0]), low + 0.14)
        low = end[0]
    for height, name, colour in ends:
        weight = "bold" if name == "lastwords" else "normal"
        axes.text(place * 1.02, 10**height, name, color=colour, va="center", fontsize=9, fontweight=weight)


def _backlog(details, path):
    """Cost of inserting and of draining one record, behind so many pending ones."""
    figure, both = plt.subplots(1, 2, figsize=(8, 3.8), sharey=True)
    for axes, way, title in zip(both, ("insert_us", "drain_us"), ("Inserting a record", "Draining one"), strict=True):
        axes.plot(details["sizes"], details[way], "o-", color=OURS, linewidth=2.4, label="lastwords", markersize=4)
        for colour, (name, curve) in zip(OTHERS, details["rivals"].items(), strict=False):
            axes.plot(curve["sizes"], curve[way], "o-", color=colour, linewidth=1.3, label=name, markersize=3)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("pending records")
        _style(axes, title)
    both[0].set_ylabel("microseconds")
    both[0].legend(frameon=False, fontsize=9)
    return _finish(figure, path)
