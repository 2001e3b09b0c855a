"""Messages over the mesh of routers: where cores sit, and what each link carries.

Four cores share a router, routers form rows of eight; cores are numbered along the rows, there and back.
Messages go along the row first, then along the column. The host sits at the first router. Chips stand side
by side, and links between them count like any other.
"""

from __future__ import annotations

from collections.abc import Mapping

Place = tuple[int, int]
HOST: Place = (0, 0)


def position(core: int, values: Mapping[str, float]) -> Place:
    """(column, row) of a core's router."""
    per_tile, columns = int(values["cores_per_tile"]), int(values["tile_columns"])
    chip, within = divmod(core, int(values["cores_per_chip"]))
    row, column = divmod(within // per_tile, columns)
    if row % 2:  # there and back, so that neighbours in number are neighbours on the mesh
        column = columns - 1 - column
    return chip * columns + column, row


def hops(start: Place, end: Place) -> int:
    """Links that a message passes."""
    return abs(start[0] - end[0]) + abs(start[1] - end[1])


def route(start: Place, end: Place) -> list[tuple[Place, Place]]:
    """The links of a message, each with its direction."""
    links = []
    (x, y), (to_x, to_y) = start, end
    while x != to_x:
        following = x + (1 if to_x > x else -1)
        links.append(((x, y), (following, y)))
        x = following
    while y != to_y:
        following = y + (1 if to_y > y else -1)
        links.append(((x, y), (x, following)))
        y = following
    return links
