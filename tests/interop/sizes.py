"""Uploads of the sizes at which clients change how they send: the same checks for every client.

Such a client has `put(name, data)`, `put_by_parts(name, data)` for what it sends as parts, and `body(name)`.
"""

from harness import PART, Group, expect_same, sample

SIZES = Group("sizes", None, uploads=True)


def of(name, client):
    return SIZES.also(f"{name}/sizes", client)


@SIZES.check
def empty(c):
    c.put("sizes/empty", b"")
    expect_same(c.body("sizes/empty"), b"")


@SIZES.check
def one_byte(c):
    c.put("sizes/one byte", b"1")
    expect_same(c.body("sizes/one byte"), b"1")


@SIZES.check
def a_part_and_a_byte(c):
    data = sample(PART + 1)
    c.put("sizes/over", data)
    expect_same(c.body("sizes/over"), data)


@SIZES.check
def by_parts(c):
    data = sample(4 * PART)
    c.put_by_parts("sizes/parts", data)
    expect_same(c.body("sizes/parts"), data)
