"""One set of versions, two commands: pyproject.toml, constraints.txt, environment.yml, Makefile and README.md agree."""

import importlib.metadata
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
# torch pins these itself, exactly: see the Makefile.
PINNED_BY_TORCH = re.compile(r"(cuda|nvidia)-|triton$")
NEEDS_MAKE = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), "constraints.txt: each line is name==version"
    assert len({canonicalize_name(name) for name, _ in pairs}) == len(pairs), "constraints.txt: a package stands twice"
    return {canonicalize_name(name): version for name, version in pairs}


def project_requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    return [Requirement(line) for line in [*PROJECT["dependencies"], *extras["lab"], *extras["test"]]]


def everything_needed(requirements: list[Requirement]) -> set[str]:
    """The names of all the packages that these requirements bring in here, found in the running environment."""
    waiting, seen = list(requirements), set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ["", *requirement.extras]:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for line in importlib.metadata.requires(name) or []:
                needed = Requirement(line)
                wanted_always = needed.marker is None or needed.marker.evaluate({"extra": ""})
                if (wanted_always and not extra) or (
                    extra and needed.marker and not wanted_always and needed.marker.evaluate({"extra": extra})
                ):
                    waiting.append(needed)
    return {name for name, _ in seen if not PINNED_BY_TORCH.match(name)}


def make(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=cwd, env=inherited | environment, capture_output=True, text=True, timeout=60
    )


# One set of versions


def test_every_package_that_is_needed_has_its_exact_version() -> None:
    missing = everything_needed(project_requirements()) - constraints().keys()
    assert not missing, f"not in constraints.txt (make upgrade renews it): {sorted(missing)}"


@pytest.mark.skipif(
    (sys.platform, platform.machine(), sys.version_info[:2]) != ("linux", "x86_64", (3, 11)),
    reason="constraints.txt is made on Linux with Python 3.11; elsewhere some of its packages are not needed",
)
def test_no_constraint_is_left_over() -> None:
    left_over = constraints().keys() - everything_needed(project_requirements())
    assert not left_over, f"in constraints.txt, and nothing needs it (make upgrade): {sorted(left_over)}"


def test_this_environment_is_the_tested_set() -> None:
    installed = {name: importlib.metadata.version(name) for name in everything_needed(project_requirements())}
    different = {n: (v, constraints()[n]) for n, v in installed.items() if Version(v).public != constraints()[n]}
    assert not different, f"installed, and in constraints.txt: {different}"


def test_the_ranges_admit_the_tested_set() -> None:
    outside = [str(r) for r in project_requirements() if constraints()[canonicalize_name(r.name)] not in r.specifier]
    assert not outside


def pip_section() -> list[str]:
    (section,) = (entry["pip"] for entry in ENVIRONMENT["dependencies"] if isinstance(entry, dict))
    return section


@NEEDS_MAKE
def test_make_and_conda_and_windows_install_the_same() -> None:
    plan = make("-n", "-B", "lab").stdout
    (line,) = (line for line in plan.splitlines() if "pip install" in line)
    assert line.partition("pip install ")[2].replace("'", "") == " ".join(pip_section())
    windows = re.search(r"Scripts\\python -m pip install (.+)", (ROOT / "README.md").read_text())[1]
    assert windows.replace('"', "") == " ".join(pip_section())


def test_conda_has_a_python_that_the_package_admits() -> None:
    (python,) = (e for e in ENVIRONMENT["dependencies"] if isinstance(e, str) and e.startswith("python="))
    admitted = Requirement(f"python{PROJECT['requires-python']}").specifier
    assert python.removeprefix("python=") in admitted


@pytest.mark.install
@pytest.mark.timeout(1500)
def test_a_fresh_environment_from_the_pip_section_of_environment_yml(tmp_path: Path) -> None:
    checkout = tmp_path / "c2f"
    shutil.copytree(ROOT / "c2f", checkout / "c2f", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    # As conda does it: the section, line by line, in a file beside environment.yml.
    (checkout / "condaenv.requirements.txt").write_text("\n".join(pip_section()))
    online = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command: str | Path, cwd: Path = tmp_path) -> str:
        done = subprocess.run(command, cwd=cwd, env=online, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    bin_ = tmp_path / "env" / ("Scripts" if sys.platform == "win32" else "bin")
    try:
        run(sys.executable, "-m", "venv", tmp_path / "env")
        run(bin_ / "python", "-m", "pip", "install", "-q", "-U", "-r", "condaenv.requirements.txt", cwd=checkout)
        run(bin_ / "python", "-m", "pip", "check")
        frozen = run(bin_ / "python", "-m", "pip", "freeze", "--all", "--exclude", "pip", "--exclude", "c2f")
        versions = {canonicalize_name(name): v for name, _, v in (ln.partition("==") for ln in frozen.splitlines())}
        assert {n: v for n, v in versions.items() if not PINNED_BY_TORCH.match(n)} == constraints()
        assert "conv2former_n_cifar" in run(bin_ / "python", "-c", "import c2f; print(c2f.list_models())")
        assert run(bin_ / "c2f", "--help").startswith("usage: c2f")
        assert run(bin_ / "jupyter", "lab", "--version").strip() == constraints()["jupyterlab"]
    finally:
        shutil.rmtree(tmp_path / "env", ignore_errors=True)  # 6 GB, and pytest keeps the last three


# Two commands


@NEEDS_MAKE
def test_make_alone_lists_every_target_in_one_line_each() -> None:
    targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    listed = make().stdout.splitlines()
    assert [line.split()[1] for line in listed] == targets
    assert all(len(line) <= 110 for line in listed)


# A python3 that notes what it is asked and installs nothing. While the file "cut-off" exists, pip dies half-way.
PRETENDER = """#!/bin/sh
echo "$@" >> asked
case "$1 $2" in
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip") touch .venv/package; if [ -e cut-off ]; then kill -KILL $PPID; fi ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "a folder with spaces"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    (folder / "python3").write_text(PRETENDER)
    (folder / "python3").chmod(0o755)
    yield folder


def asked(folder: Path) -> list[str]:
    """What the pretender was asked since the last call, in short."""
    note = folder / "asked"
    lines = note.read_text().splitlines() if note.exists() else []
    note.unlink(missing_ok=True)
    return [" ".join(line.split()[1:3]) for line in lines if line.startswith("-m")]


INSTALL = ["venv .venv", "pip install"]


@NEEDS_MAKE
def test_the_first_call_installs_and_the_second_starts_at_once(checkout: Path) -> None:
    assert make("lab", "PYTHON=./python3", cwd=checkout).returncode == 0
    assert asked(checkout) == [*INSTALL, "jupyterlab --notebook-dir=."]
    assert make("lab", "PYTHON=./python3", cwd=checkout).returncode == 0
    assert asked(checkout) == ["jupyterlab --notebook-dir=."]
    assert make("test", "PYTHON=./python3", cwd=checkout).returncode == 0
    assert asked(checkout) == ["ruff check", "pytest --numprocesses"]


@NEEDS_MAKE
@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_new_set_is_installed_into_the_same_environment(checkout: Path, name: str) -> None:
    make("test", "PYTHON=./python3", cwd=checkout)
    os.utime(checkout / ".venv" / "ready", (0, 0))
    (checkout / ".venv" / "kept").touch()
    asked(checkout)
    os.utime(checkout / name)
    make("test", "PYTHON=./python3", cwd=checkout)
    assert "pip install" in asked(checkout)
    assert (checkout / ".venv" / "kept").exists()


@NEEDS_MAKE
def test_an_installation_that_was_cut_off_begins_again(checkout: Path) -> None:
    (checkout / "cut-off").touch()
    assert make("test", "PYTHON=./python3", cwd=checkout).returncode != 0
    assert asked(checkout) == ["venv .venv", "pip install"]
    (checkout / ".venv" / "half").touch()
    (checkout / "cut-off").unlink()
    second = make("test", "PYTHON=./python3", cwd=checkout)
    assert second.returncode == 0 and "cut off" in second.stdout
    assert asked(checkout) == [*INSTALL, "ruff check", "pytest --numprocesses"]
    assert not (checkout / ".venv" / "half").exists()


@NEEDS_MAKE
def test_an_environment_that_somebody_else_made_is_not_deleted(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "theirs").touch()
    assert make("test", "PYTHON=./python3", cwd=checkout).returncode == 0
    assert (checkout / ".venv" / "theirs").exists()


@NEEDS_MAKE
def test_a_folder_that_was_moved_is_put_right_once(checkout: Path) -> None:
    make("test", "PYTHON=./python3", cwd=checkout)
    moved = checkout.rename(checkout.with_name("elsewhere"))
    asked(moved)
    make("test", "PYTHON=./python3", cwd=moved)
    assert asked(moved) == [*INSTALL, "ruff check", "pytest --numprocesses"]
    make("test", "PYTHON=./python3", cwd=moved)
    assert asked(moved) == ["ruff check", "pytest --numprocesses"]


@NEEDS_MAKE
@pytest.mark.parametrize(
    ("question", "sentence"),
    [("version_info", "c2f needs Python 3.11 or newer"), ("ensurepip", "cannot make environments")],
)
def test_a_python_that_will_not_do_gets_one_sentence(checkout: Path, question: str, sentence: str) -> None:
    (checkout / "python3").write_text(f'#!/bin/sh\ncase "$2" in *{question}*) exit 1;; esac\n')
    done = make("-s", "lab", "PYTHON=./python3", cwd=checkout)
    assert done.returncode != 0
    assert sentence in done.stdout and len(done.stdout.splitlines()) == 1
    assert not (checkout / ".venv").exists()


@NEEDS_MAKE
def test_upgrade_writes_the_new_set_under_the_old_heading(checkout: Path) -> None:
    frozen = "'numpy==9.9\\nnvidia-cublas==13.1\\ncuda-bindings==13.5\\ntriton==3.8\\ntorch==9.0\\n'"
    freeze = f'case "$*" in *freeze*) printf {frozen};; esac\n'
    (checkout / "python3").write_text(PRETENDER + freeze)
    done = make("upgrade", "PYTHON=./python3", cwd=checkout)
    heading = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("#")]
    assert (checkout / "constraints.txt").read_text().splitlines() == [*heading, "numpy==9.9", "torch==9.0"], done
    asked(checkout)
    make("test", "PYTHON=./python3", cwd=checkout)
    assert asked(checkout) == ["ruff check", "pytest --numprocesses"]


# No network


def test_the_tests_have_no_network() -> None:
    with pytest.raises(OSError, match="the tests have no network"):
        socket.create_connection(("example.com", 80))
    with pytest.raises(OSError, match="the tests have no network"), socket.socket() as s:
        s.connect(("192.0.2.1", 80))
    attempt = "import urllib.request; urllib.request.urlopen('https://example.com')"
    child = subprocess.run([sys.executable, "-c", attempt], capture_output=True, text=True)
    assert "the tests have no network" in child.stderr


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_this_computer_can_be_reached(host: str) -> None:
    with socket.create_server((host, 0)) as server, socket.create_connection(server.getsockname()[:2]) as client:
        assert client.getpeername() == server.getsockname()
