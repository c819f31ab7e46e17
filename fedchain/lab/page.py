"""The comparison as one HTML page that stands alone: no script, no font, and pictures inside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from ..audit.html import page_environment
from .compare import Comparison
from .exposure import exposures
from .summary import headline, rows_of

CAPTIONS = {
    "quality": "Quality by round. Bands run from the worst to the best over seeds, and over members for each alone.",
    "members": "Each member's own held-out data, which it does not train on: mean, and from worst to best over seeds.",
    "cost": "What a round costs each member (first seed). Bytes are those of objects in the store, not the chain's.",
    "scaling": "The same charter with more or fewer members, first seed. Seconds and bytes are one member's, a round.",
}


def render_page(comparison: Comparison, pictures: Mapping[str, bytes], version: str) -> str:
    """The page. Names that came from the charter are escaped."""
    environment = page_environment("fedchain.lab")
    environment.filters |= {"bytes": bytes_in_words, "seconds": seconds_in_words}
    return environment.get_template("comparison.html").render(
        comparison=comparison,
        charter=comparison.charter,
        headline=headline(comparison),
        rows=rows_of(comparison),
        exposures=exposures(comparison.charter),
        pictures={name: base64.b64encode(png).decode() for name, png in pictures.items()},
        captions=CAPTIONS,
        members=len(comparison.charter.federation.members),
        version=version,
    )


def bytes_in_words(count: float) -> str:
    """A number of bytes, with three digits or so."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 1000 * size else f"{count / size:,.0f} {unit}"
    return f"{count:.0f} B"


def seconds_in_words(seconds: float) -> str:
    """Seconds, shorter ones with more digits."""
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:,.0f} s"
