"""How a number is shared out over cells that may not hold enough."""

from collections.abc import Sequence


def share_out(total: int, available: Sequence[int], weights: Sequence[float]) -> list[int]:
    """Integers near `total` x weight, none above what its cell holds; what one cell cannot take goes to the others.

    Args:
        total: to share out; if the cells hold less in all, everything is taken.
        available: of each cell.
        weights: of each cell, above 0; only their proportions count.
    """
    taken = [0] * len(available)
    left = min(total, sum(available))
    while left:
        room = [cell for cell in range(len(available)) if taken[cell] < available[cell]]
        whole = sum(weights[cell] for cell in room)
        grants = {cell: min(available[cell] - taken[cell], int(left * weights[cell] / whole)) for cell in room}
        if not any(grants.values()):
            grants = dict.fromkeys(sorted(room, key=lambda cell: -weights[cell])[:left], 1)
        for cell, grant in grants.items():
            taken[cell] += grant
        left -= sum(grants.values())
    return taken
