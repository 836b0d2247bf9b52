"""Metadata of ordinary training on released data: the last values of its curve, and the curve as a picture."""

from typing import Any

import dagster as dg

from dp_assets.artifacts import Adapter


def training_figures(adapter: Adapter, *, title: str) -> dict[str, Any]:
    """Figures and the curve of an adapter's training, from its own record."""
    from dp_assets.evaluation.plots import curve_figure, to_markdown_png

    curve = [dict(point) for point in adapter.record["curve"]]
    names = [name for name in curve[-1] if name != "step"] if curve else []
    last = {f"training/{name}": float(curve[-1][name]) for name in names}
    measured = {f"training/{name}": float(value) for name, value in adapter.record.get("figures", {}).items()}
    shown = [name for name in ("loss", "reward", "kl") if name in names]
    picture = {}
    if len(curve) > 1 and shown:
        markdown = to_markdown_png(curve_figure(curve, x="step", ys=shown, title=title), f"{title}: curves")
        picture = {"curve": dg.MetadataValue.md(markdown)}
    return {**last, **measured, **picture}
