"""Which scalars belong into one chart, for loggers that let a run arrange its own charts."""

from collections.abc import Iterable

# Category, chart, and the keys of the lines in it.
Layout = dict[str, dict[str, list[str]]]

# Headline scores in the order they are read in, and how they share charts.
HEADLINE = ("robustness", "consistency", "responsiveness", "flip_rate")
_CHARTS = {
    "robustness": ("robustness",),
    "consistency and responsiveness": ("consistency", "responsiveness"),
    "flip rate and degenerate rate": ("flip_rate", "degenerate_rate"),
}


def arrange_charts(cells: Iterable[tuple[str, str, int]], *, name: str) -> Layout:
    """Put the headline first, then for each method one chart a perturbation with one line a severity.

    Args:
        cells: Method, perturbation and severity.
        name: Of the callback, as in its keys.

    Returns:
        Keys by category and chart, in the order of the cells.

    Example:
        >>> layout = arrange_charts([("gradcam", "fog", 1), ("gradcam", "fog", 3)], name="cam")
        >>> list(layout)
        ['cam: headline', 'cam: robustness of gradcam']
        >>> layout["cam: robustness of gradcam"]
        {'fog': ['cam_robustness/gradcam/fog/1', 'cam_robustness/gradcam/fog/3']}
    """
    headline = {chart: [f"val_{name}_{score}" for score in scores] for chart, scores in _CHARTS.items()}
    layout: Layout = {f"{name}: headline": headline}
    for method, perturbation, severity in cells:
        charts = layout.setdefault(f"{name}: robustness of {method}", {})
        charts.setdefault(perturbation, []).append(f"{name}_robustness/{method}/{perturbation}/{severity}")
    return layout
