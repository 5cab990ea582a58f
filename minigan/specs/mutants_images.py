"""The mistakes that belong to one op: those of images, windows that move and normalisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from minigan.autograd import Op
from minigan.ops import (
    conv,
    down,
    few,
    lines,
    norm,
    planes,
    pool,
    reduction,
    shape,
    strips,
    windows,
)
from minigan.specs.mutants_base import Call, Rule, attribute, forgetful, helper
from minigan.tensor import Tensor

# Windows


def moved(what: str, by: int, axis: int | None = None) -> Rule:
    """Return the rule that sees another stride, padding, dilation or kernel in its geometry."""

    def change(op: Op) -> Any:
        pair = list(getattr(op.geometry, what))
        for k in (0, 1) if axis is None else (axis,):
            pair[k] = max(pair[k] + by, 0 if what == "padding" else 1)
        return replace(op.geometry, **{what: tuple(pair)})

    return attribute(geometry=change)


def exchanged(what: str) -> Rule:
    """Return the rule that takes vertical for horizontal in its geometry."""
    return attribute(
        geometry=lambda op: replace(op.geometry, **{what: getattr(op.geometry, what)[::-1]})
    )


right_scatter, right_windows, right_pad = pool.scatter_windows, pool.windows, pool.pad_image
right_pieces, right_crop, right_turned = conv.pieces, windows.crop, conv.turned
right_cut, right_strip_pieces, right_parts = conv.cut, strips.strip_pieces, lines.parts
right_phases, right_trimmed, right_in_places = lines.by_phase, lines.trimmed, strips.in_places
right_add_taps, right_put_together = planes.add_taps, planes.put_together
right_add_lines, right_results_of = down.add_lines, down.results_of


def last_write_wins(patches: Any, images: Any, *rest: Any) -> None:
    """In place of `scatter_windows`: windows overwrite one another."""
    for i, j in np.ndindex(patches.shape[3:5]):
        one_tap = np.zeros_like(patches)
        one_tap[:, :, :, i, j] = 1
        hit, written = np.zeros_like(images), np.zeros_like(images)
        right_scatter(one_tap, hit, *rest)
        right_scatter(one_tap * patches, written, *rest)
        images[...] = np.where(hit > 0, written, images)


def without_last_row(patches: Any, images: Any, g: Any, *rest: Any) -> None:
    """In place of `scatter_windows`: the loop over the kernel's rows ends one too early."""
    rows = max(1, g.kernel[0] - 1)
    cut = replace(g, kernel=(rows, g.kernel[1]))
    right_scatter(patches[:, :, :, :rows], images, cut, *rest)


def flipped_scatter(patches: Any, images: Any, *rest: Any) -> None:
    """In place of `scatter_windows`: each upside down and mirrored."""
    right_scatter(patches[:, :, :, ::-1, ::-1], images, *rest)


def flipped_windows(xp: Any, padded: Any, g: Any) -> Any:
    """In place of `windows`: each upside down and mirrored, as for a kernel that is flipped."""
    return right_windows(xp, padded, g)[:, :, :, ::-1, ::-1]


def padded_with_ones(xp: Any, x: Any, g: Any, value: float = 0.0) -> Any:
    """In place of `pad_image`: the padding holds ones."""
    return right_pad(xp, x, g, 1.0)


def cropped_with_ones(backend: Any, x: Any, *rest: Any) -> Any:
    """In place of `crop`: the padding holds ones."""
    inside = right_crop(backend, np.ones_like(x), *rest)
    return right_crop(backend, x, *rest) + (1 - inside)


def last_piece_twice(*args: Any) -> list:
    """In place of `pieces`: the last one comes twice."""
    pieces = right_pieces(*args)
    return pieces + pieces[-1:]


def first_piece_only(*args: Any) -> list:
    """In place of `pieces`: the first of them, or all but the last row of the only one."""
    images, rows = right_pieces(*args)[0]
    return [(images, slice(rows.start, max(rows.start, rows.stop - 1)))]


def first_of_each_lane(*args: Any) -> list[slice]:
    """In place of `cut`: of the pieces that a lane sums, the first only."""
    return [slice(some.start, some.start + 1) for some in right_cut(*args)]


def last_strips_twice(*args: Any) -> list:
    """In place of `strip_pieces`: the last one comes twice."""
    pieces = right_strip_pieces(*args)
    return pieces + pieces[-1:]


def parts_but_some(*args: Any) -> Any:
    """In place of `parts`: the last row of the kernel meets nothing."""
    products = right_parts(*args)
    last = max(part.weight for part in products.parts)
    return replace(products, parts=tuple(p for p in products.parts if p.weight < last), calls={})


def parts_exchanged(*args: Any) -> Any:
    """In place of `parts`: the rows of the kernel meet the strips of one another."""
    products = right_parts(*args)
    rows = sorted({part.weight for part in products.parts})
    other = dict(zip(rows, rows[::-1], strict=True))
    parts = tuple(part._replace(weight=other[part.weight]) for part in products.parts)
    return replace(products, parts=parts, calls={})


def lines_further_on(xp: Any, x: Any, first: int, second: int, *rest: Any) -> None:
    """In place of `down.add_lines`: both are a line further on."""
    right_add_lines(xp, x, first + 1, second + 1, *rest)


def pairs_exchanged(*args: Any) -> list:
    """In place of `down.results_of`: the first line of a pair has what belongs to the second."""
    lines, planes = zip(*right_results_of(*args), strict=True)
    return list(zip(lines, planes[::-1], strict=True))


def phases_exchanged(strips: Any, *args: Any) -> list:
    """In place of `by_phase`: the lines of the first phase belong to the last."""
    found = list(right_phases(strips, *args))
    if len(found) == 1:
        return [(part, pixels[::-1]) for part, pixels in found]
    return [(part, pixels) for (part, _), (_, pixels) in zip(found, found[::-1], strict=True)]


def neighbours_exchanged(y: Any, tiling: Any) -> Any:
    """In place of `in_places`: the first of some neighbouring results is taken for the last."""
    found = list(right_in_places(y, tiling))
    if len(found) > 1:
        return [(of_y, *at) for (of_y, *_), (_, *at) in zip(found, found[::-1], strict=True)]
    turned = (slice(None, None, -1),) * len(tiling.scheme.filters)
    return [(of_y[turned], place, some) for of_y, place, some in found]


def trimmed_by_one(*args: Any) -> tuple:
    """In place of `trimmed`: the first column of the kernel is said to lie a pixel further on."""
    g, w = right_trimmed(*args)
    return replace(g, padding=(g.padding[0], g.padding[1] - 1)), w


def taps_but_some(planes: Any, taps: Any, *args: Any) -> None:
    """In place of `add_taps`: the last row of the kernel is nowhere added."""
    some = taps.copy()
    some[-1:] = 0
    right_add_taps(planes, some, *args)


def flipped_taps(planes: Any, taps: Any, *args: Any) -> None:
    """In place of `add_taps`: the kernel is upside down and mirrored."""
    right_add_taps(planes, taps[::-1, ::-1], *args)


def planes_exchanged(images: Any, planes: Any, *args: Any) -> None:
    """In place of `put_together`: the first phase is taken for the last."""
    right_put_together(images, planes[::-1, ::-1], *args)


def windows_wrong(adder: Any, viewer: Any) -> dict[str, Rule]:
    """Return the mistakes of an op whose derivative moves windows over images.

    `adder` is the module that adds windows up, `viewer` the one that looks at them.
    """
    found = {}
    for what in ("stride", "padding", "dilation"):
        for by in (1, -1):
            sign = "more" if by > 0 else "less"
            found[f"{what} one {sign}"] = moved(what, by)
            found[f"vertical {what} one {sign}"] = moved(what, by, 0)
            found[f"horizontal {what} one {sign}"] = moved(what, by, 1)
        found[f"{what} exchanged"] = exchanged(what)
    return found | {
        "kernel exchanged": exchanged("kernel"),
        "overlap-add skipped": helper(adder, "scatter_windows", last_write_wins),
        "last row of the kernel left out": helper(adder, "scatter_windows", without_last_row),
        "kernel flipped where it is read": helper(viewer, "windows", flipped_windows),
        "kernel flipped where it is added": helper(adder, "scatter_windows", flipped_scatter),
    }


def weight_kernel_flipped(i: int) -> Rule:
    """Return the rule that reads saved array i, a weight, with its kernel flipped."""
    return lambda call: call.run_with_saved(
        lambda saved: [shape.flip(t, (0, 1)) if k == i else t for k, t in enumerate(saved)]
    )


POOLING = windows_wrong(pool, pool) | {
    "padding of ones": helper(pool, "pad_image", padded_with_ones),
}
CONVOLUTION = windows_wrong(conv, windows) | {
    "padding of ones": helper(windows, "crop", cropped_with_ones),
    "first piece of each lane only": helper(conv, "cut", first_of_each_lane),
    "first block of the bias's gradient only": helper(reduction, "added", lambda parts: parts[0]),
    "a row of the first piece only": helper(conv, "pieces", first_piece_only),
    "kernel turned round about another pixel": helper(
        conv, "turned_geometry", lambda g: replace(g, padding=(g.padding[1], g.padding[0] + 1))
    ),
    "kernel not turned round": helper(conv, "turned", lambda w: right_turned(w)[::-1, ::-1]),
    "groups forgotten": attribute(geometry=lambda op: replace(op.geometry, groups=1)),
    "last piece of the columns counted twice": helper(conv, "pieces", last_piece_twice),
    "last piece of the strips counted twice": helper(strips, "strip_pieces", last_strips_twice),
    "strips: first piece of each lane only": helper(strips, "cut", first_of_each_lane),
    "strips: last row of the kernel left out": helper(strips, "parts", parts_but_some),
    "strips: rows of the kernel exchanged": helper(strips, "parts", parts_exchanged),
    "strips: phases exchanged": helper(lines, "by_phase", phases_exchanged),
    "strips: neighbouring results exchanged": helper(strips, "in_places", neighbours_exchanged),
    "strips: a pixel further on": helper(strips, "trimmed", trimmed_by_one),
    "pairs of lines: a line further on": helper(down, "add_lines", lines_further_on),
    "pairs of lines: exchanged": helper(down, "results_of", pairs_exchanged),
    "planes: last row of the kernel left out": helper(planes, "add_taps", taps_but_some),
    "planes: kernel flipped": helper(planes, "add_taps", flipped_taps),
    "planes: phases exchanged": helper(planes, "put_together", planes_exchanged),
    "few pixels: last row of the kernel left out": helper(few, "parts", parts_but_some),
    "few pixels: rows of the kernel exchanged": helper(few, "parts", parts_exchanged),
    "few pixels: a pixel further on": helper(few, "trimmed", trimmed_by_one),
}


# Batch normalisation


def gradient_of_x(wrong: Callable[..., Tensor]) -> Rule:
    """Return batch norm's rule with the gradient of x from `wrong(gy, normal, inv_std, γ, m)`."""

    def rule(call: Call) -> list[Any]:
        gradients = call.run()
        x, gamma = call.op.saved()
        normal, inv_std = norm.normalize(x, tuple(range(x.ndim - 1)), call.op.eps)
        rows = x.size // x.shape[-1]
        gradients[0] = wrong(call.gy, normal, inv_std, gamma, rows) + x * 0.0
        return gradients

    return rule


def _means(gy: Tensor, normal: Tensor, m: float) -> tuple[Tensor, Tensor]:
    axes = tuple(range(gy.ndim - 1))
    return reduction.sum(gy, axes) * (1 / m), reduction.sum(gy * normal, axes) * (1 / m)


def no_mean_term(gy: Tensor, normal: Tensor, inv_std: Tensor, gamma: Tensor, m: int) -> Tensor:
    """As if the mean did not depend on x."""
    return gamma * inv_std * (gy - normal * _means(gy, normal, m)[1])


def no_variance_term(gy: Tensor, normal: Tensor, inv_std: Tensor, gamma: Tensor, m: int) -> Tensor:
    """As if the variance did not depend on x."""
    return gamma * inv_std * (gy - _means(gy, normal, m)[0])


def as_in_evaluation(gy: Tensor, normal: Tensor, inv_std: Tensor, gamma: Tensor, m: int) -> Tensor:
    """As if neither depended on x."""
    return gamma * inv_std * gy


def unbiased(gy: Tensor, normal: Tensor, inv_std: Tensor, gamma: Tensor, m: int) -> Tensor:
    """With m − 1 for m."""
    of_gy, of_both = _means(gy, normal, m - 1)
    return gamma * inv_std * (gy - of_gy - normal * of_both)


def without_gamma(gy: Tensor, normal: Tensor, inv_std: Tensor, gamma: Tensor, m: int) -> Tensor:
    """Without the scale."""
    of_gy, of_both = _means(gy, normal, m)
    return inv_std * (gy - of_gy - normal * of_both)


def without_std(gy: Tensor, normal: Tensor, inv_std: Tensor, gamma: Tensor, m: int) -> Tensor:
    """Without the division by the deviation."""
    of_gy, of_both = _means(gy, normal, m)
    return gamma * (gy - of_gy - normal * of_both)


def std_detached(gy: Tensor, normal: Tensor, inv_std: Tensor, gamma: Tensor, m: int) -> Tensor:
    """With the deviation as a plain array: right at first order, wrong at second."""
    of_gy, of_both = _means(gy, normal, m)
    return gamma * inv_std.detach() * (gy - of_gy - normal * of_both)


def normal_detached(gy: Tensor, normal: Tensor, inv_std: Tensor, gamma: Tensor, m: int) -> Tensor:
    """With the normalised x as a plain array: right at first order, wrong at second."""
    return unbiased(gy, normal.detach(), inv_std, gamma, m + 1)


BATCH_NORM = {
    "mean's term dropped": gradient_of_x(no_mean_term),
    "variance's term dropped": gradient_of_x(no_variance_term),
    "both terms dropped": gradient_of_x(as_in_evaluation),
    "m - 1 for m": gradient_of_x(unbiased),
    "without the scale": gradient_of_x(without_gamma),
    "without the deviation": gradient_of_x(without_std),
    "deviation detached": forgetful(gradient_of_x(std_detached)),
    "normalised x detached": forgetful(gradient_of_x(normal_detached)),
    "epsilon forgotten": attribute(eps=lambda op: 0.0),
    "epsilon doubled": attribute(eps=lambda op: 2 * op.eps),
    "scale's gradient as the shift's": lambda call: [call.run()[k] for k in (0, 2, 2)],
}
BATCH_NORM_FUSED = {
    "mean off": attribute(near=lambda op: op.near + 1e-3),
    "what was left of the mean off": attribute(left=lambda op: op.left + 1e-3),
    "deviation off": attribute(inv_std=lambda op: op.inv_std * (1 + 1e-6)),
    "deviation squared": attribute(inv_std=lambda op: op.inv_std**2),
    "deviation of the next channel": attribute(inv_std=lambda op: np.roll(op.inv_std, 1)),
    "mean's term dropped": gradient_of_x(no_mean_term),
    "variance's term dropped": gradient_of_x(no_variance_term),
    "both terms dropped": gradient_of_x(as_in_evaluation),
    "m - 1 for m": gradient_of_x(unbiased),
    "without the scale": gradient_of_x(without_gamma),
    "without the deviation": gradient_of_x(without_std),
    "scale's gradient as the shift's": lambda call: [call.run()[k] for k in (0, 2, 2)],
    "first block of the sums only": helper(norm, "added", lambda parts: parts[0]),
    "column sums without the last row": helper(
        norm, "ones_times", lambda backend, rows, out: rows[:-1].sum(axis=0, out=out)
    ),
}

# All of them

IMAGES: dict[str, dict[str, Rule]] = {
    "Conv2d": CONVOLUTION | {"kernel of the weight flipped": weight_kernel_flipped(1)},
    "ConvTranspose2d": CONVOLUTION | {"kernel of the weight flipped": weight_kernel_flipped(1)},
    "ConvWeight": CONVOLUTION,
    "Unfold": POOLING,
    "Fold": POOLING,
    "BatchNorm": BATCH_NORM,
}
