"""A file system in memory that can lose its power: what is written and what is synced are two things here.

It implements `postroom.streaming.spool.file_system.FileSystem`. `crash_states` gives the disks that a power cut at
this moment may leave. The rules are those a program may rely on, not those of one file system:

- what was synced stays. A file's `sync` covers its content and size, a folder's `sync_folder` the names in it;
- an unsynced write may be there, gone, there up to some byte, there as zeros, or there with a hole of zeros before
  it, whatever became of writes before it and in other files;
- an unsynced name may be there or gone, whatever became of others; a rename is there in both folders or in neither;
- a file or folder whose name is gone is gone with all that is in it.
"""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING

from postroom.streaming.spool.file_system import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

_TOTAL_BYTES = 2**40


class _Write:
    """An unsynced change of a file: `data` at `offset`, or a new size where `data` is None."""

    __slots__ = ("data", "offset")

    def __init__(self, offset: int, data: bytes | None) -> None:
        self.offset = offset
        self.data = data


class _FileNode:
    __slots__ = ("content", "durable", "lock", "pending")

    def __init__(self, content: bytes = b"") -> None:
        self.content = content
        self.durable = content
        self.pending: list[_Write] = []
        self.lock: ModelFile | None = None

    def variants(self, random: Random) -> list[bytes]:
        """Return the contents that a power cut may leave: each prefix of the writes, the last one whole or hurt."""
        found = [self.durable]
        content = self.durable
        for write in self.pending:
            before, content = content, _applied(content, write)
            found.append(content)
            if write.data:
                found += (_applied(before, hurt) for hurt in _hurt(write.offset, write.data, random))
        if len(self.pending) > 1:  # the later ones without the earlier
            found += (_applied(self.durable, write) for write in self.pending[1:])
        return found


class _FolderNode:
    __slots__ = ("durable", "names", "pending")

    def __init__(self) -> None:
        self.names: dict[str, _FileNode | _FolderNode] = {}
        self.durable: dict[str, _FileNode | _FolderNode] = {}
        self.pending: list[_NameChange] = []


class _NameChange:
    """An unsynced change of names: in each folder named, `name` stands for `node` afterwards, or for nothing."""

    __slots__ = ("parts",)

    def __init__(self, *parts: tuple[_FolderNode, str, _FileNode | _FolderNode | None]) -> None:
        self.parts = parts

    def settle(self) -> None:
        """Make it durable, in all its folders."""
        for folder, name, node in self.parts:
            _set(folder.durable, name, node)
            if self in folder.pending:
                folder.pending.remove(self)


class ModelFile:
    """An open file of the model. See `File` for the methods."""

    def __init__(self, model: ModelFileSystem, node: _FileNode, path: str) -> None:
        self._model = model
        self._node = node
        self._path = path

    def write_at(self, data: bytes, offset: int) -> int:
        """See File. Writes less when the model is nearly full."""
        data = data[: self._model.room_for(self._node, len(data), offset)]
        self._model.before("write", self._path)
        write = _Write(offset, data)
        self._node.content = _applied(self._node.content, write)
        self._node.pending.append(write)
        self._model.changed()
        return len(data)

    def read_at(self, count: int, offset: int) -> bytes:
        """See File."""
        self._model.before("read", self._path)
        return self._node.content[offset : offset + count]

    def size(self) -> int:
        """See File."""
        return len(self._node.content)

    def truncate(self, size: int) -> None:
        """See File."""
        self._model.before("truncate", self._path)
        write = _Write(size, None)
        self._node.content = _applied(self._node.content, write)
        self._node.pending.append(write)
        self._model.changed()

    def sync(self) -> None:
        """See File."""
        if self._model.syncs("sync", self._path):
            self._node.durable = self._node.content
            self._node.pending.clear()
            self._model.changed()

    def try_lock(self) -> bool:
        """See File."""
        if self._node.lock is not None:
            return False
        self._node.lock = self
        return True

    def close(self) -> None:
        """See File."""
        if self._node.lock is self:
            self._node.lock = None


class ModelFileSystem:
    """A file system in memory. Paths begin with a slash; all folders but `/` have to be made.

    `on_change` is called after every change, a sync included. `fault(operation, path)` may return an OSError to raise
    instead of doing it. `free_bytes` is the room left for contents, None for no limit. Syncs from a place in the code
    (`file:line`) that is in `deaf_to` do nothing, and say they did; `sync_places` collects all places.
    """

    def __init__(self) -> None:
        self._root = _FolderNode()
        self.on_change: Callable[[], None] | None = None
        self.fault: Callable[[str, str], OSError | None] | None = None
        self.free_bytes: int | None = None
        self.deaf_to: frozenset[str] = frozenset()
        self.sync_places: set[str] = set()

    # -- FileSystem

    def open_to_read(self, path: str) -> ModelFile:
        """See FileSystem."""
        self.before("open", path)
        node = self._node(path)
        if not isinstance(node, _FileNode):
            raise _error(errno.ENOENT if node is None else errno.EISDIR, path)
        return ModelFile(self, node, path)

    def open_to_write(self, path: str) -> ModelFile:
        """See FileSystem."""
        return self.open_to_read(path)

    def create(self, path: str) -> ModelFile:
        """See FileSystem."""
        self.before("create", path)
        node = _FileNode()
        self._add(path, node)
        return ModelFile(self, node, path)

    def make_folder(self, path: str) -> None:
        """See FileSystem."""
        self.before("make_folder", path)
        self._add(path, _FolderNode())

    def entries(self, path: str) -> list[str]:
        """See FileSystem."""
        self.before("entries", path)
        return list(self._folder(path).names)

    def entry(self, path: str) -> Entry:
        """See FileSystem."""
        node = self._node(path)
        if node is None:
            return Entry.ABSENT
        return Entry.FILE if isinstance(node, _FileNode) else Entry.FOLDER

    def unlink(self, path: str) -> None:
        """See FileSystem."""
        self.before("unlink", path)
        folder, name = self._place(path)
        if not isinstance(folder.names.get(name), _FileNode):
            raise _error(errno.ENOENT, path)
        self._change(_NameChange((folder, name, None)))

    def rename(self, old: str, new: str) -> None:
        """See FileSystem."""
        self.before("rename", old)
        (old_folder, old_name), (new_folder, new_name) = self._place(old), self._place(new)
        node = old_folder.names.get(old_name)
        if node is None:
            raise _error(errno.ENOENT, old)
        self._change(_NameChange((old_folder, old_name, None), (new_folder, new_name, node)))

    def sync_folder(self, path: str) -> None:
        """See FileSystem."""
        if self.syncs("sync_folder", path):
            for change in list(self._folder(path).pending):
                change.settle()
            self.changed()

    def space(self, path: str) -> tuple[int, int]:
        """See FileSystem. The size is a tebibyte; without a limit all of it is free."""
        self.before("space", path)
        return _TOTAL_BYTES, _TOTAL_BYTES if self.free_bytes is None else self.free_bytes

    # -- for tests

    def content(self, path: str) -> bytes:
        """Return what a file holds now."""
        node = self._node(path)
        assert isinstance(node, _FileNode)
        return node.content

    def put(self, path: str, content: bytes) -> None:
        """Let a file have held `content` for ever. Its folder must exist."""
        folder, name = self._place(path)
        folder.names[name] = folder.durable[name] = _FileNode(content)

    def flip(self, path: str, bit: int) -> None:
        """Flip a bit of a file where it stands, for those who have it open, too."""
        node = self._node(path)
        assert isinstance(node, _FileNode)
        content = bytearray(node.content)
        content[bit // 8] ^= 1 << bit % 8
        node.content = node.durable = bytes(content)
        node.pending.clear()

    def remove(self, path: str) -> None:
        """Let a file never have been there."""
        folder, name = self._place(path)
        del folder.names[name]
        folder.durable.pop(name, None)

    def paths(self, under: str = "/") -> list[str]:
        """Return the paths of all files under a folder, sorted."""
        found = []
        for name, node in self._folder(under).names.items():
            path = f"{under.rstrip('/')}/{name}"
            found += [path] if isinstance(node, _FileNode) else self.paths(path)
        return sorted(found)

    def crash_states(self, random: Random) -> Iterator[ModelFileSystem]:
        """Give disks that a power cut at this moment may leave, each as a new file system at rest.

        First all unsynced changes gone, then all there; then, for each file and folder with unsynced changes, every
        one of its variants beside a random choice for all others.
        """
        files, changes = self._unsynced()
        yield self._after_cut({}, frozenset())
        yield self._after_cut({node: node.content for node in files}, frozenset(changes))
        variants = {node: node.variants(random) for node in files}

        def some_contents() -> dict[_FileNode, bytes]:
            return {node: random.choice(found) for node, found in variants.items()}

        def some_changes() -> frozenset[_NameChange]:
            return frozenset(change for change in changes if random.random() < 0.5)

        for node, found in variants.items():
            for content in found:
                yield self._after_cut({**some_contents(), node: content}, some_changes())
        for change in changes:
            yield self._after_cut(some_contents(), some_changes() | {change})
            yield self._after_cut(some_contents(), some_changes() - {change})

    # -- for the files of this model

    def before(self, operation: str, path: str) -> None:
        """Raise what `fault` wants raised."""
        exc = self.fault(operation, path) if self.fault is not None else None
        if exc is not None:
            raise exc

    def changed(self) -> None:
        """Say that something changed."""
        if self.on_change is not None:
            self.on_change()

    def syncs(self, operation: str, path: str) -> bool:
        """Note where a sync was asked for; False when it is to do nothing."""
        frame = sys._getframe(2)  # noqa: SLF001 - the place in the code that asked is what matters here
        place = f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
        self.sync_places.add(place)
        self.before(operation, path)
        return place not in self.deaf_to

    def room_for(self, node: _FileNode, count: int, offset: int) -> int:
        """Take room for a write; return how many of its bytes fit. Raises ENOSPC when none does."""
        if self.free_bytes is None:
            return count
        growth = max(0, offset + count - len(node.content))
        short = max(0, growth - self.free_bytes)
        if short and short >= count:
            raise _error(errno.ENOSPC, "")
        self.free_bytes -= growth - short
        return count - short

    # -- inside

    def _node(self, path: str) -> _FileNode | _FolderNode | None:
        node: _FileNode | _FolderNode | None = self._root
        for name in path.split("/")[1:]:
            if name:
                node = node.names.get(name) if isinstance(node, _FolderNode) else None
        return node

    def _folder(self, path: str) -> _FolderNode:
        node = self._node(path)
        if not isinstance(node, _FolderNode):
            raise _error(errno.ENOENT if node is None else errno.ENOTDIR, path)
        return node

    def _place(self, path: str) -> tuple[_FolderNode, str]:
        folder, _, name = path.rpartition("/")
        return self._folder(folder or "/"), name

    def _add(self, path: str, node: _FileNode | _FolderNode) -> None:
        folder, name = self._place(path)
        if name in folder.names:
            raise _error(errno.EEXIST, path)
        self._change(_NameChange((folder, name, node)))

    def _change(self, change: _NameChange) -> None:
        for folder, name, node in change.parts:
            _set(folder.names, name, node)
            if change not in folder.pending:
                folder.pending.append(change)
        self.changed()

    def _unsynced(self) -> tuple[list[_FileNode], list[_NameChange]]:
        files: dict[_FileNode, None] = {}
        changes: dict[_NameChange, None] = {}
        folders = [self._root]
        while folders:
            folder = folders.pop()
            changes |= dict.fromkeys(folder.pending)
            for node in (*folder.names.values(), *folder.durable.values()):
                if isinstance(node, _FolderNode):
                    if node not in folders:
                        folders.append(node)
                elif node.pending:
                    files[node] = None
        return list(files), list(changes)

    def _after_cut(self, contents: dict[_FileNode, bytes], changes: frozenset[_NameChange]) -> ModelFileSystem:
        model = ModelFileSystem()
        model._root = _copy(self._root, contents, changes)
        return model


def _copy(folder: _FolderNode, contents: dict[_FileNode, bytes], changes: frozenset[_NameChange]) -> _FolderNode:
    """Return the folder after the cut: what is durable, and those of the unsynced changes that came through."""
    names = dict(folder.durable)
    for change in folder.pending:
        if change in changes:
            for changed, name, node in change.parts:
                if changed is folder:
                    _set(names, name, node)
    copied = _FolderNode()
    for name, node in names.items():
        if isinstance(node, _FolderNode):
            copied.names[name] = _copy(node, contents, changes)
        else:
            copied.names[name] = _FileNode(contents.get(node, node.durable))
    copied.durable = dict(copied.names)
    return copied


def _set(names: dict[str, _FileNode | _FolderNode], name: str, node: _FileNode | _FolderNode | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


def _applied(content: bytes, write: _Write) -> bytes:
    offset, data = write.offset, write.data
    if data is None:
        return content[:offset].ljust(offset, b"\0")
    return content[:offset].ljust(offset, b"\0") + data + content[offset + len(data) :]


def _hurt(offset: int, data: bytes, random: Random) -> Iterator[_Write]:
    """Give what may become of one write: cut, zeroed, or with a hole, each at a few places."""
    length = len(data)
    yield _Write(offset, bytes(length))
    for cut in {1, length // 2, length - 1, random.randrange(length), random.randrange(length)}:
        yield _Write(offset, data[:cut])
        yield _Write(offset, data[:cut] + bytes(length - cut))
        yield _Write(offset, bytes(cut) + data[cut:])


def _error(code: int, path: str) -> OSError:
    return OSError(code, errno.errorcode[code], path)
