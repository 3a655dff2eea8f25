import pytest

from vaelab.files import replacing


def test_a_file_appears_whole_in_a_folder_that_is_made(tmp_path):
    path = tmp_path / "new" / "file.txt"

    with replacing(path) as temporary:
        temporary.write_text("all of it")
        assert not path.exists()

    assert path.read_text() == "all of it"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("before")

    def write_half_of_it():
        with replacing(path) as temporary:
            temporary.write_text("half of")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half_of_it()

    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
