"""What is asked of the file system in one place, `files.py`."""

from __future__ import annotations

from pathlib import Path

from ml_dash.files import FILES


def test_removing_a_folder_leaves_what_links_lead_to(tmp_path: Path) -> None:
    """Everything in it goes, links as links; a folder that is a link itself, or is not there, stays as it is."""
    doomed, kept = tmp_path / "doomed", tmp_path / "kept"
    for folder in (doomed / "a" / "b", kept):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    (doomed / "folder").symlink_to(kept)
    (doomed / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link").symlink_to(kept)
    FILES.remove_folder(tmp_path / "link")
    FILES.remove_folder(tmp_path / "nowhere")
    FILES.remove_folder(doomed)
    assert not doomed.exists()
    assert (kept / "file").read_text() == "x"
