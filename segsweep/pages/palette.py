"""Colours of classes that people of any colour vision tell apart.

The seven of Okabe and Ito (2008, "Color Universal Design", without black), then lighter and darker
ones of the same hues: no set of many more colours is safe, so names always stand beside them.
"""

from __future__ import annotations

from segsweep.data.base import BACKGROUND, IGNORE

RGB = tuple[int, int, int]

BASE: tuple[RGB, ...] = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (0, 114, 178),  # blue
    (213, 94, 0),  # vermilion
    (204, 121, 167),  # reddish purple
)
SHADES = ((1, 0), (0.5, 128), (0.65, 0))  # of the rounds: as they are, with white, with black
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def colour(category: int) -> RGB:
    """Return the colour of a class; every 21 classes they begin again."""
    rounds, place = divmod(category, len(BASE))
    factor, white = SHADES[rounds % len(SHADES)]
    red, green, blue = (round(factor * v) + white for v in BASE[place])
    return min(red, 255), min(green, 255), min(blue, 255)


def ink(background: RGB) -> RGB:
    """Return black or white, whichever is easier to read on a colour (WCAG 2 contrast)."""
    return BLACK if luminance(background) > 0.179 else WHITE


def luminance(rgb: RGB) -> float:
    """Return the relative luminance of an sRGB colour, from 0 to 1 (WCAG 2)."""
    linear = [v / 3294.6 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def palette() -> list[int]:
    """Return the palette of label maps: 256 colours as PNG files hold them."""
    special = {BACKGROUND: BLACK, IGNORE: WHITE}
    return [v for k in range(256) for v in special.get(k, colour(k))]
