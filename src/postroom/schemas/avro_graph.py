"""Questions about a whole schema: is it recursive, how deep, can it end. A node may be reached by many ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.schemas.avro_nodes import Leaf, Node, Record, Union, children

if TYPE_CHECKING:
    from collections.abc import Iterator


def walk(root: Node) -> Iterator[Node]:
    """Every node once, in the order of the schema."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            waiting.extend(reversed(children(node)))


def is_recursive(root: Node) -> bool:
    """True when some record can hold itself."""
    return any(isinstance(node, Record) and _reaches(node, node) for node in walk(root))


def _reaches(start: Node, goal: Node) -> bool:
    return any(node is goal for child in children(start) for node in walk(child))


def static_depth(root: Node) -> int:
    """Levels of records, arrays and maps in each other; for schemas that are not recursive."""
    known: dict[int, int] = {}
    for node in reversed(list(_children_last(root))):
        below = max((known[id(child)] for child in children(node)), default=0)
        known[id(node)] = below + (0 if isinstance(node, (Leaf, Union)) else 1)
    return known[id(root)]


def _children_last(root: Node) -> list[Node]:
    """Every node once, parents before children, by the schema's longest ways (Kahn's order over the graph)."""
    incoming: dict[int, int] = {}
    for node in walk(root):
        for child in children(node):
            incoming[id(child)] = incoming.get(id(child), 0) + 1
    order, ready = [], [root]
    while ready:
        node = ready.pop()
        order.append(node)
        for child in children(node):
            incoming[id(child)] -= 1
            if incoming[id(child)] == 0:
                ready.append(child)
    return order


def never_ends(root: Node) -> list[Record]:
    """The records that no value can ever finish: each needs another one inside."""
    nodes = list(walk(root))
    finite: set[int] = set()
    while True:
        more = [node for node in nodes if id(node) not in finite and _can_end(node, finite)]
        if not more:
            return [node for node in nodes if isinstance(node, Record) and id(node) not in finite]
        finite.update(id(node) for node in more)


def _can_end(node: Node, finite: set[int]) -> bool:
    if isinstance(node, Union):
        return any(id(branch) in finite for branch in node.branches)
    if isinstance(node, Record):
        return all(id(child) in finite for child in children(node))
    return True  # leaves, and arrays and maps, which may be empty


def takes_no_bytes(node: Node) -> bool:
    """True when every value of this node is written as nothing at all. Only for records that can end."""
    if isinstance(node, Leaf):
        return node.base == "null" or (node.base == "fixed" and node.size == 0)
    return isinstance(node, Record) and all(takes_no_bytes(item.type) for item in node.fields)
