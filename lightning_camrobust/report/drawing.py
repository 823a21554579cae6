"""Figures that explain the numbers. Matplotlib is imported when something is drawn, and pyplot never."""

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from torch.nn.functional import interpolate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_camrobust.gallery import Gallery, Panel

_SAME, _CHANGED, _UNKNOWN = "#1a7f37", "#c02f1d", "#666666"


def draw_gallery(gallery: "Gallery", *, heading: str = "") -> "Figure":
    """Draw one row an image: clean image and its map, then noisy images and theirs.

    The segment that the map ranks first is outlined: at the default p it makes 89% of the overlap.

    Args:
        gallery: What to show.
        heading: A line above.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    num_rows, num_panels = len(gallery.rows), len(gallery.rows[0])
    figure = Figure(figsize=(1.55 * 2 * num_panels, 1.95 * num_rows + 0.8), dpi=110, layout="constrained")
    axes = figure.subplots(num_rows, 2 * num_panels, squeeze=False)
    for row, panels in zip(axes, gallery.rows, strict=True):
        for column, panel in enumerate(panels):
            _draw_panel(row[2 * column], row[2 * column + 1], panel, clean=panels[0])
    figure.suptitle(heading, fontsize=11)
    figure.supxlabel(
        f"Maps: {gallery.method}. White outline: the segment ranked first. Green: prediction kept, a high RBO is good. "
        "Red: prediction changed, a low RBO is good.",
        fontsize=8.5,
    )
    return figure


def draw_severity_curves(report: dict[str, Any]) -> "Figure":
    """Draw robustness, consistency and flip rate against severity, one line a perturbation, for the first method.

    Args:
        report: As in ``callback.report``.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    method = report["pooled"][0]["method"]
    cells = [cell for cell in report["cells"] if cell["method"] == method]
    figure = Figure(figsize=(11, 3.6), dpi=110, layout="constrained")
    panels = (("robustness", "Robustness C x R"), ("consistency", "Consistency C"), ("flip_rate", "Flip rate"))
    for axes, (key, title) in zip(figure.subplots(1, 3), panels, strict=True):
        for name in dict.fromkeys(cell["perturbation"] for cell in cells):
            points = [(cell["severity"], cell[key]) for cell in cells if cell["perturbation"] == name]
            known = [(severity, value) for severity, value in points if value is not None]
            axes.plot(*zip(*known, strict=True) if known else ([], []), marker="o", markersize=4, label=name)
        axes.set(title=title, xlabel="severity", ylim=(-0.03, 1.03), xlim=(0.7, 5.3), xticks=[1, 2, 3, 4, 5])
        axes.grid(alpha=0.25)
    figure.get_axes()[0].legend(fontsize=8)
    figure.suptitle(
        f"{method}, {report['num_images']} images. Robustness is shown where some predictions changed and some stayed.",
        fontsize=9.5,
    )
    return figure


def figure_to_pixels(figure: "Figure") -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Render a figure without any window system.

    Args:
        figure: What was drawn.

    Returns:
        ``(height, width, 3)`` uint8.

    Example:
        >>> from matplotlib.figure import Figure
        >>> figure_to_pixels(Figure(figsize=(2, 1), dpi=10)).shape
        (10, 20, 3)
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_panel(picture: "Axes", overlay: "Axes", panel: "Panel", *, clean: "Panel") -> None:
    image = _as_picture(panel.pixels)
    picture.imshow(image)
    overlay.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=1)
    overlay.imshow(_heat(panel), cmap="inferno", alpha=0.6, vmin=0, vmax=1)
    if panel.top_segment.any() and not panel.top_segment.all():
        overlay.contour(panel.top_segment.numpy().astype(float), levels=[0.5], colors="white", linewidths=1.2)
    picture.set_title(panel.title, fontsize=8)
    caption, colour = _caption(panel, clean)
    overlay.set_title(caption, fontsize=8, color=colour)
    for axes in (picture, overlay):
        axes.set_xticks([])
        axes.set_yticks([])


def _caption(panel: "Panel", clean: "Panel") -> tuple[str, str]:
    if panel is clean:
        return f"class {panel.predicted}", "black"
    verdict = "same" if panel.same else "changed"
    if panel.similarity is None:
        return f"class {panel.predicted} {verdict}\nnot rankable", _UNKNOWN
    return f"class {panel.predicted} {verdict}\nRBO {panel.similarity:.2f}", _SAME if panel.same else _CHANGED


def _as_picture(pixels: Tensor) -> np.ndarray[Any, Any]:
    channels = pixels if pixels.shape[0] == 3 else pixels.mean(dim=0, keepdim=True).expand(3, -1, -1)
    return channels.permute(1, 2, 0).numpy()


def _heat(panel: "Panel") -> np.ndarray[Any, Any]:
    size = (int(panel.pixels.shape[1]), int(panel.pixels.shape[2]))
    heat = panel.heat.nan_to_num()
    span = float(heat.max() - heat.min())
    scaled = (heat - heat.min()) / (span or 1.0)
    return interpolate(scaled[None, None], size=size, mode="bilinear", align_corners=False)[0, 0].numpy()
