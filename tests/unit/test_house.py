"""Rules about the repository itself."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))

# Put together from pieces, so that this file does not break its own rule.
HOSTS = [
    ".".join(labels)
    for labels in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("debian", "org"),
        ("ubuntu", "com"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("golang", "org"),
        ("crates", "io"),
    )
]
INDEX_OPTIONS = [stem + separator + "url" for stem in ("index", "extra-index", "default-index") for separator in "-_"]
INDEX_OPTIONS += ["find" + separator + "links" for separator in "-_"]
REGISTRY_OR_INDEX = re.compile("|".join(re.escape(text) for text in HOSTS + INDEX_OPTIONS), re.IGNORECASE)


def repository_files() -> list[Path]:
    """List what is committed or would be: tracked files, and new ones that nothing ignores."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not in a git work tree")
    paths = (ROOT / name.decode() for name in listed.split(b"\0") if name)
    return sorted(path for path in paths if path.is_file())


def text_of(path: Path) -> str | None:
    content = path.read_bytes()
    return None if b"\0" in content[:8192] else content.decode("utf-8", errors="replace")


def requirements_of(lock: Path) -> list[str]:
    """The lock's entries, each with its hashes on one line and no comments."""
    lines = [line for line in lock.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    return [entry for entry in "\n".join(lines).replace("\\\n", " ").splitlines() if entry.strip()]


def test_no_file_names_a_registry_or_an_index() -> None:
    found = []
    for path in repository_files():
        for number, line in enumerate((text_of(path) or "").splitlines(), 1):
            if match := REGISTRY_OR_INDEX.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert found == []


def test_the_locks_exist() -> None:
    assert [lock.name for lock in LOCKS] == ["fuzz.txt", "lock.txt", "runtime.txt", "test.txt"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_locked_package_has_one_version_and_hashes(lock: Path) -> None:
    entry = re.compile(r"[A-Za-z0-9._-]+==[^\s;]+(\s*;[^#]*?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*")
    entries = requirements_of(lock)
    assert entries
    assert [text for text in entries if not entry.fullmatch(text)] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_locks_hold_no_address_and_no_path(lock: Path) -> None:
    assert re.findall(r"\S*(?::/|^/|\s/)\S*", lock.read_text("utf-8"), re.MULTILINE) == []


def test_locks_agree_on_the_packages_they_share() -> None:
    """A package may have one version for each kind of interpreter, told apart by what stands behind it."""
    versions: dict[tuple[str, str], set[str]] = {}
    for lock in LOCKS:
        for text in requirements_of(lock):
            requirement, _, marker = text.partition(";")
            name, version = re.split("==", requirement.split()[0])
            where = re.search(r"python_full_version\s*\S+\s*'[^']*'", marker)
            versions.setdefault((name, where[0] if where else ""), set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_every_package_folder_has_an_init_file() -> None:
    """Without one, the import contracts would pass over the folder in silence."""
    package = ROOT / "src" / "quicprochat"
    folders = {path.parent for path in package.rglob("*.py")}
    assert sorted(folder for folder in folders if not (folder / "__init__.py").is_file()) == []


def test_the_contracts_cover_core_and_sim_whole() -> None:
    """A wildcard would leave out the folder's own __init__.py."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = {contract["id"]: contract for contract in config["tool"]["importlinter"]["contracts"]}
    for name, contract in (("core", "pure-core"), ("sim", "sim")):
        if (ROOT / "src" / "quicprochat" / name).is_dir():
            assert contracts[contract]["source_modules"] == [f"quicprochat.{name}"]


def test_what_runs_the_program_outside_of_a_namespace_is_found_by_nobody() -> None:
    """All tests share the loopback. Labs have namespaces of their own, and two files are about being found."""
    starts = re.compile(r"sys[.]exit[(]main[(][)][)]|-m.{1,4}quicprochat|with_name[(].qpc.[)]")
    named = [path for path in sorted((ROOT / "tests").rglob("*.py")) if starts.search(path.read_text("utf-8"))]
    quiet = re.compile(r"QPC_NO_DISCOVERY|integration[.]qpc import")
    loud = [path for path in named if path.parent.name != "labs" and not quiet.search(path.read_text("utf-8"))]
    assert [path.name for path in loud if path != Path(__file__)] == []
    assert len(named) > 2
    found = [path.name for path in (ROOT / "tests").rglob("test_*.py") if '"QPC_NO_DISCOVERY": "0"' in path.read_text()]
    assert sorted(name for name in found if name != Path(__file__).name) == [
        "test_discovery.py",
        "test_found_server.py",
    ]


def test_the_package_imports_without_the_mesh_extra() -> None:
    program = """
import sys

class NoIroh:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "iroh":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, NoIroh())
import quicprochat
import quicprochat.cli
assert quicprochat.__version__
assert "iroh" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
