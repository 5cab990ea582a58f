"""What `examples/evaluate.py` says: one table over real images, images made worse, and runs."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .files import replace_file
from .judging import Candidate
from .run import RunError

# What stands in the table: key of the scores, heading, factor, digits after the point.
COLUMNS = (
    ("frechet", "Fréchet", 1, 2),
    ("kid", "KID", 1, 2),
    ("precision", "precision", 1, 3),
    ("recall", "recall", 1, 3),
    ("density", "density", 1, 3),
    ("coverage", "coverage", 1, 3),
    ("inception", "inception", 1, 2),
    ("classes_hit", "classes", 1, 1),
    ("total_variation", "uneven", 1, 3),
    ("as_asked", "as asked", 1, 3),
    ("teaches", "teaches", 1, 3),
    ("seconds", "seconds", 1, 0),
)
SPREAD = {"kid": "kid_std", "inception": "inception_std"}  # of one set, found in its own scores
Row = tuple[str, str, Sequence[Mapping[str, Any]]]  # name, which images, scores of one set or more


def verdict(
    run: Candidate,
    distances: Mapping[int, float],
    scores: Mapping[int, Mapping[str, Any]],
) -> dict[str, Any]:
    """What the report says about one run: its settings, and the scores of its best and last step.

    Args:
        distances: by which the best was chosen, for every step.
        scores: by step.
    """
    best, last = min(distances, key=distances.__getitem__), max(distances)
    return {
        "path": str(run.path),
        "script": run.script,
        "settings": run.settings,
        "seed": run.seed,
        "seconds": run.seconds,
        "distances": {str(step): distance for step, distance in distances.items()},
        "best": {"step": best, **scores[best], "seconds": run.seconds},
        "last": {"step": last, **scores[last], "seconds": run.seconds},
    }


def make_folder(out: str | os.PathLike) -> None:
    """Make the folder of a report before there is one: what cannot be is said while it is cheap.

    Raises:
        RunError: nothing can be written there.
    """
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise RunError(f"cannot write to {out}: {error}; choose another --out") from error


def write_report(out: str | os.PathLike, report: Mapping[str, Any]) -> str:
    """Write evaluation.json and evaluation.md to the folder `out`, and return the second."""
    text = report_text(report)
    Path(out).mkdir(parents=True, exist_ok=True)
    content = json.dumps(report, indent=2, allow_nan=False, default=str) + "\n"
    for name, words in (("evaluation.json", content), ("evaluation.md", text)):
        replace_file(Path(out) / name, lambda file, words=words: file.write(words.encode()))
    return text


def report_text(report: Mapping[str, Any]) -> str:
    """The report in Markdown: the table, what was compared, and each run if they share rows."""
    together = groups(report["runs"])
    rows: list[Row] = [("real", "training images", [report["floor"]])]
    rows += [("", name, [scores]) for name, scores in report["ladder"].items()]
    for name, runs in together.items():
        many = f" of {len(runs)} runs" if len(runs) > 1 else ""
        for which in ("best", "last"):
            steps = {run[which]["step"] for run in runs}
            step = (
                f", step {steps.pop()}" if len(steps) == 1 and len(runs[0]["distances"]) > 1 else ""
            )
            rows.append((name, f"{which}{many}{step}", [run[which] for run in runs]))
    parts = [table(rows), notes(report)]
    if len(together) < len(report["runs"]):
        each: list[Row] = [
            (run["path"], f"{which}, step {run[which]['step']}", [run[which]])
            for run in report["runs"]
            for which in ("best", "last")
        ]
        parts += ["Each run:", table(each)]
    return "\n\n".join(parts) + "\n"


def notes(report: Mapping[str, Any]) -> str:
    """What was compared with what: a paragraph to stand below the table."""
    judge = report["classifier"]
    text = (
        f"{report['count']} images of each set against {report['count']} test images of "
        f"{report['data']} at {report['size']}×{report['size']}, by the features of classifier "
        f"{judge['sha256'][:12]}, which gets {judge['accuracy']:.2%} of them right; seed "
        f"{report['seed']}."
    )
    if report["runs"]:
        text += (
            f" The best of the kept generators was chosen by its Fréchet distance with "
            f"{report['pick']} images of other noise."
        )
    if "teaches" in report["floor"]:
        text += (
            " `teaches` is the accuracy on test images of a classifier trained on the set; where "
            "a generator takes no labels they are what the judge's classifier sees."
        )
    text += (
        " ± is the standard deviation: over runs that differ in their seed, or, in a row of one "
        "set, over the subsets of KID and the parts of the inception score."
    )
    return text


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, its columns aligned for those who read it as text.

    Of several sets in a row it shows the mean and the standard deviation. A column for which no row
    has a number is left out.
    """
    used = [c for c in COLUMNS if any(_numbers(scores, c[0]) for _, _, scores in rows)]
    lines = [["", "images", *(heading for _, heading, _, _ in used)]]
    lines += [[name, which, *(_cell(scores, *c) for c in used)] for name, which, scores in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * w if i < 2 else "-" * (w - 1) + ":" for i, w in enumerate(widths)])
    texts = []
    for line in lines:
        cells = enumerate(zip(line, widths, strict=True))
        texts.append(" | ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in cells))
    return "\n".join(f"| {text} |" for text in texts)


def groups(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Runs that differ in nothing but their seed, together: {name: runs}, in order.

    The name is the script's, with those settings in which groups of one script differ. What has no
    seed, an archive of images, stands alone; so does a second run with the same seed.
    """
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        key = json.dumps([run["script"], run["settings"]], sort_keys=True, default=str)
        seeds = [other["seed"] for other in alike.get(key, [])]
        if run["seed"] is None or run["seed"] in seeds:
            key += run["path"]
        alike.setdefault(key, []).append(run)
    named: dict[str, list[Mapping[str, Any]]] = {}
    for group in alike.values():
        script, settings = group[0]["script"], group[0]["settings"]
        others = [other[0]["settings"] for other in alike.values() if other[0]["script"] == script]
        differing = ", ".join(
            f"{name} {value}"
            for name, value in settings.items()
            if any(other.get(name) != value for other in others)
        )
        name = f"{script} ({differing})" if differing else script
        named[name if name not in named else group[0]["path"]] = group
    return named


def _span(steps: Sequence[int]) -> str:
    return str(steps[0]) if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"


def _numbers(scores: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [s[key] for s in scores if s.get(key) is not None]


def _cell(
    scores: Sequence[Mapping[str, Any]], key: str, heading: str, factor: float, digits: int
) -> str:
    numbers = factor * np.array(_numbers(scores, key), float)
    if not len(numbers):
        return ""
    if len(numbers) == 1:
        text = f"{numbers[0]:.{0 if key == 'classes_hit' else digits}f}"
        own = scores[0].get(SPREAD.get(key, ""))
        return text if own is None else f"{text} ± {factor * own:.{digits}f}"
    return f"{numbers.mean():.{digits}f} ± {numbers.std(ddof=1):.{digits}f}"
