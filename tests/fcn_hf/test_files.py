"""Files and folders appear whole or not at all."""

import pytest

from fcn_hf.files import ASIDE, write_aside, written_aside


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.is_file() and path.read_text() for path in folder.rglob("*")}


def test_what_is_written_takes_the_place_of_its_namesakes_and_the_rest_stays(tmp_path):
    (tmp_path / "old.txt").write_text("old")
    (tmp_path / "both.txt").write_text("old")
    (tmp_path / "empty").mkdir()
    with written_aside(tmp_path) as aside:
        (aside / "both.txt").write_text("new")
        (aside / "empty").mkdir()
        (aside / "empty" / "inside.txt").write_text("new")
        assert (tmp_path / "both.txt").read_text() == "old"
    written = {"both.txt": "new", "empty": False, "empty/inside.txt": "new"}
    assert contents(tmp_path) == {"old.txt": "old", **written}


def test_a_failure_leaves_everything_as_it_was(tmp_path):
    (tmp_path / "both.txt").write_text("old")

    def fail(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_aside(tmp_path / "both.txt", fail)
    assert contents(tmp_path) == {"both.txt": "old"}


def test_folders_above_are_made_and_a_name_without_a_folder_is_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/b/file.txt", "file.txt"):
        write_aside(tmp_path / name, lambda path: path.write_text("new"))
    with written_aside(".") as aside:
        (aside / "here.txt").write_text("new")
    assert contents(tmp_path).keys() == {"a", "a/b", "a/b/file.txt", "file.txt", "here.txt"}


def test_what_a_killed_process_left_aside_is_removed_and_what_is_in_use_stays(tmp_path):
    (tmp_path / f"{ASIDE}left").mkdir()
    (tmp_path / f"{ASIDE}left" / "half").write_text("half")
    with written_aside(tmp_path) as aside:
        (aside / "first.txt").write_text("first")
        write_aside(tmp_path / "second.txt", lambda path: path.write_text("second"))
        assert not (tmp_path / f"{ASIDE}left").exists()
    assert contents(tmp_path) == {"first.txt": "first", "second.txt": "second"}
