"""Boxes of a tensor: arrays of shape [boxes, 6], from and up to an expert, a row and a column.

What a shard has of a slab is a range of its elements, counted row by row: at most five boxes, of which two are parts of
a row and two parts of an expert's rows.
"""

import numpy as np

from meshwright.costmodels.layout import IntArray

Cube = tuple[int, int, int]


def lines_of_ranges(first: IntArray, last: IntArray, width: int) -> tuple[IntArray, IntArray]:
    """Cut ranges [first, last) of elements in rows of `width` into rectangles.

    Gives for each rectangle the number of its range, and [rectangles, 4]: from and up to a row, from and up to a
    column. A range is at most the end of a row, whole rows and the begin of another, in this order.
    """
    above, below = -(-first // width), last // width
    inside = above > below
    starts, ends = first - (above - 1) * width, last - below * width
    head = np.stack([above - 1, above, starts, np.where(inside, ends, width)], axis=1)
    whole = np.stack([above, below, np.zeros_like(first), np.full_like(first, width)], axis=1)
    tail = np.stack([below, below + 1, np.zeros_like(first), ends], axis=1)
    kept = np.stack([(starts < width) & (first < last), (below > above), (ends > 0) & ~inside & (first < last)], axis=1)
    owner, part = np.nonzero(kept)
    return owner, np.stack([head, whole, tail], axis=1)[owner, part]


def boxes_of_ranges(first: IntArray, last: IntArray, cube: Cube) -> tuple[IntArray, IntArray]:
    """Cut ranges [first, last) of a cube's elements into boxes: the number of each one's range, and [boxes, 6]."""
    _, rows, columns = cube
    of_line, lines = lines_of_ranges(first, last, columns)
    of_plane, planes = lines_of_ranges(lines[:, 0], lines[:, 1], rows)
    return of_line[of_plane], np.concatenate([planes, lines[of_plane, 2:]], axis=1)


def clipped(boxes: IntArray, cube: Cube) -> IntArray:
    """Cut off what lies beyond a cube; boxes that are empty then have no extent."""
    return np.asarray(np.minimum(boxes, np.repeat(np.array(cube), 2)))


def extents(boxes: IntArray) -> IntArray:
    """Give experts, rows and columns of each box, [boxes, 3]."""
    return np.asarray(np.maximum(boxes[:, 1::2] - boxes[:, ::2], 0))


def volumes(boxes: IntArray) -> IntArray:
    """Give the elements of each box."""
    return np.asarray(extents(boxes).prod(axis=1))


def intersections(first: IntArray, second: IntArray) -> IntArray:
    """Intersect boxes one by one."""
    both = np.empty_like(first)
    both[:, ::2] = np.maximum(first[:, ::2], second[:, ::2])
    both[:, 1::2] = np.minimum(first[:, 1::2], second[:, 1::2])
    return both


def hulls(boxes: IntArray, rows: int) -> tuple[IntArray, IntArray]:
    """Give the first row and the one behind the last row that each box touches, rows counted through all experts."""
    return boxes[:, 0] * rows + boxes[:, 2], (boxes[:, 1] - 1) * rows + boxes[:, 3]


def no_larger(boxes: IntArray, most: int) -> tuple[IntArray, IntArray]:
    """Cut boxes along their longest dimension into equal parts of about `most` elements.

    Gives for each part the number of its box, and [parts, 6].
    """
    sizes = extents(boxes)
    axis = np.argmax(sizes, axis=1)
    extent = sizes[np.arange(len(boxes)), axis]
    parts = np.minimum(np.maximum(-(-volumes(boxes) // most), 1), extent)
    owner = np.repeat(np.arange(len(boxes)), parts)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(parts) - parts, parts)
    cut, rows = boxes[owner], np.arange(len(owner))
    start, along = cut[rows, 2 * axis[owner]], axis[owner]
    cut[rows, 2 * along] = start + extent[owner] * number // parts[owner]
    cut[rows, 2 * along + 1] = start + extent[owner] * (number + 1) // parts[owner]
    return owner, cut
