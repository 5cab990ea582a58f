"""Floor 2: making images larger."""

from __future__ import annotations

import numpy as np

from minigan.ops.pool import separable
from minigan.ops.shape import broadcast_to, getitem, reshape, transpose
from minigan.ops.windows import Pair, as_pair, check_image
from minigan.tensor import Tensor


def interpolate(
    x: Tensor,
    size: Pair | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
) -> Tensor:
    """Return images resampled to `size`, or by `scale_factor`.

    Args:
        x: (N, H, W, C).
        size: (OH, OW) in pixels, or one number for both.
        scale_factor: the alternative to `size`; sizes that do not come out whole are cut off.
        mode: "nearest" or "bilinear".
        align_corners: for bilinear, whether the corner pixels' centres keep their places; by
            default the images' outer edges do.

    Raises:
        ValueError: no images, not exactly one of size and scale_factor, or an unknown mode.
    """
    check_image(x, "interpolate")
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: give either size or scale_factor")
    if mode not in ("nearest", "bilinear"):
        raise ValueError(f"interpolate: mode {mode!r} is unknown: use 'nearest' or 'bilinear'")
    n, h, w, c = x.shape
    if 0 in x.shape[1:3]:
        raise ValueError(f"interpolate: images without pixels, input {x.shape}")
    if size is None:
        by = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * 2
        size = int(h * by[0]), int(w * by[1])
    oh, ow = as_pair(size, "interpolate", "size", 1)
    by = (oh / h, ow / w) if scale_factor is None else by
    if mode == "bilinear":
        down, across = _lines(h, oh, by[0], align_corners), _lines(w, ow, by[1], align_corners)
        return separable(x, down, across)
    if tuple(by) == (oh // h, ow // w):  # whole factors
        x = broadcast_to(reshape(x, (n, h, 1, w, 1, c)), (n, h, oh // h, w, ow // w, c))
        return reshape(x, (n, oh, ow, c))
    rows, across = (  # a little more, since a quotient that should be whole may be rounded down
        np.minimum((np.arange(parts) / scale + 1e-9).astype(int), pixels - 1)
        for parts, scale, pixels in ((oh, by[0], h), (ow, by[1], w))
    )
    return getitem(x, (slice(None), rows[:, None], across))


def _lines(n: int, parts: int, scale: float, align_corners: bool) -> np.ndarray:
    """Return the matrix (parts, n) that interpolates a line of n pixels at `parts` places."""
    if align_corners:
        places = np.linspace(0, n - 1, parts) if parts > 1 else np.zeros(1)
    else:
        places = np.clip((np.arange(parts) + 0.5) / scale - 0.5, 0, n - 1)
    left = np.minimum(places.astype(int), max(n - 2, 0))
    rows = np.zeros((parts, n))
    rows[np.arange(parts), left] = 1 - (places - left)
    rows[np.arange(parts), np.minimum(left + 1, n - 1)] += places - left
    return rows


def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    """Return images r times as large with r² times fewer channels (Shi et al. 2016).

    (N, H, W, C·r²) -> (N, H·r, W·r, C); channel c·r² + i·r + j goes to row i, column j of its
    r×r block.

    Raises:
        ValueError: no images, or channels that r² does not divide.
    """
    check_image(x, "pixel_shuffle")
    r = as_pair(upscale_factor, "pixel_shuffle", "upscale_factor", 1)[0]
    n, h, w, c = x.shape
    if c % (r * r):
        raise ValueError(f"pixel_shuffle: {c} channels cannot be shared among {r}x{r} pixels")
    x = transpose(reshape(x, (n, h, w, c // (r * r), r, r)), (0, 1, 4, 2, 5, 3))
    return reshape(x, (n, h * r, w * r, c // (r * r)))
