"""Folders of files by name."""

from nbdt.storage import LocalStorage


def test_two_processes_that_draw_one_part_both_end_well(tmp_path):
    """The slower one takes the place of what the faster one made since it looked."""
    where = LocalStorage(tmp_path / "out")
    with where.folder("pages/part-000000") as mine:
        (mine / "x").write_text("mine")
        with where.folder("pages/part-000000") as other:
            (other / "x").write_text("other")
    assert (tmp_path / "out" / "pages" / "part-000000" / "x").read_text() == "mine"
    assert where.names("pages") == ["part-000000"]
