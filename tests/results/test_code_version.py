"""The digest of the code changes with what makes records, and with nothing else."""

import re
from pathlib import Path

from mapflow.results.runs.provenance import FOLDERS, READERS, code_version

ROOT = Path(__file__).parents[2]
IMPORTED = re.compile(r"^ *(?:from|import) (mapflow\.[\w.]+)", re.MULTILINE)


def package(root: Path) -> Path:
    for folder in FOLDERS:
        (root / folder / "deep").mkdir(parents=True)
        (root / folder / "__init__.py").write_text("")
        (root / folder / "deep" / "one.py").write_text(f"{folder} = 1\n")
    return root


def test_an_edit_a_new_file_and_a_new_name_change_it(tmp_path):
    seen = [code_version.__wrapped__(package(tmp_path))]
    for folder in FOLDERS:
        file = tmp_path / folder / "deep" / "one.py"
        file.write_text("x = 2\n")
        seen.append(code_version.__wrapped__(tmp_path))
        file.rename(file.with_name("two.py"))
        seen.append(code_version.__wrapped__(tmp_path))
        (tmp_path / folder / "three.py").write_text("")
        seen.append(code_version.__wrapped__(tmp_path))
    assert len(set(seen)) == len(seen) == 13


def test_readers_of_records_and_files_that_are_no_code_do_not(tmp_path):
    before = code_version.__wrapped__(package(tmp_path))
    for name in READERS:
        (tmp_path / "results" / name).mkdir()
        (tmp_path / "results" / name / "page.py").write_text("x = 1\n")
    (tmp_path / "tasks" / "README.md").write_text("x")
    (tmp_path / "tasks" / "deep" / "one.pyc").write_bytes(b"x")
    assert code_version.__wrapped__(tmp_path) == before


def test_the_running_code_is_found_and_every_reader_exists():
    assert code_version() == code_version(ROOT)
    exist = {room for folder in FOLDERS for room in READERS if (ROOT / folder / room).is_dir()}
    assert READERS - exist <= {"api", "package_root"}, "one of them holds `import mapflow`"


def test_a_new_room_of_the_front_end_has_to_say_whether_it_can_change_records():
    rooms = {file.relative_to(ROOT / "harness").parts[0] for file in ROOT.glob("harness/*/**/*.py")}
    assert rooms - READERS == {"analyses", "evaluation"}


def test_code_that_makes_records_imports_no_reader():
    """Below the front end; else an edit of a reader could change records unnoticed."""
    for folder in ("model_adapters", "results", "tasks"):
        for file in (ROOT / folder).rglob("*.py"):
            if not READERS.intersection(file.relative_to(ROOT).parts):
                for module in IMPORTED.findall(file.read_text()):
                    assert not READERS.intersection(module.split(".")), f"{file} imports {module}"
