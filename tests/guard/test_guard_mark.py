"""The durable mark of a fenced node."""

import os

import pytest

from understudy.guard import mark


def test_no_mark_is_open_and_a_mark_is_read_back(tmp_path):
    """What was written is read; after clearing there is none."""
    path = tmp_path / "fenced"
    assert mark.read(path) is None
    mark.write(path, 7)
    assert mark.read(path).epoch == 7
    mark.clear(path)
    mark.clear(path)
    assert mark.read(path) is None


def test_mark_never_goes_back(tmp_path):
    """A late writer of an older epoch changes nothing."""
    path = tmp_path / "fenced"
    mark.write(path, 7)
    mark.write(path, 6)
    assert mark.read(path).epoch == 7


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"fenced at epoch 1",
        b"fenced at epoch \n",
        b"fenced at epoch -1\n",
        b"\0" * 19,
        b"\xff\n",
        b"fenced at epoch 1\n\n",
    ],
)
def test_damaged_mark_means_closed(tmp_path, damage):
    """Whatever is wrong with the file, the node stays closed, at an epoch that is not known; writing anew heals it."""
    path = tmp_path / "fenced"
    path.write_bytes(damage)
    read = mark.read(path)
    assert read.epoch is None
    assert "counts as fenced" in read.reason
    mark.write(path, 3)
    assert mark.read(path).epoch == 3


def test_unreadable_mark_means_closed(tmp_path):
    """An error of the disk is not an open node."""
    (tmp_path / "fenced").mkdir()
    assert mark.read(tmp_path / "fenced").epoch is None


def test_interrupted_write_leaves_the_old_mark(tmp_path, monkeypatch):
    """The new mark is complete on disk before it takes the old one's place."""
    path = tmp_path / "fenced"
    mark.write(path, 1)

    def fail(_):
        raise OSError(5, "the disk is gone")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk is gone"):
        mark.write(path, 2)
    assert mark.read(path).epoch == 1
