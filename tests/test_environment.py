"""One set of versions, two commands: pyproject.toml, constraints.txt, environment.yml, kit.py, Makefile and README.md
agree, and an environment that works survives whatever happens to the next one."""

import ast
import csv
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tomllib
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
# torch pins these itself, exactly: see docs/renew_constraints.py.
PINNED_BY_TORCH = re.compile(r"(cuda|nvidia)-|triton$")
NEEDS_MAKE = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def load_kit() -> ModuleType:
    specification = importlib.util.spec_from_file_location("kit", ROOT / "kit.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


kit = load_kit()


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


def test_kit_and_conda_install_the_same() -> None:
    assert " ".join(kit.WHAT) == " ".join(pip_section())


def test_the_kit_takes_the_pythons_that_the_package_and_torch_take() -> None:
    assert PROJECT["requires-python"] == ">={}.{}".format(*kit.OLDEST)
    classifiers = importlib.metadata.metadata("torch").get_all("Classifier")
    minors = [int(found[1]) for line in classifiers if (found := re.search(r":: Python :: 3\.(\d+)$", line))]
    assert (3, max(minors)) == kit.NEWEST
    assert "Python {}.{} to {}.{}".format(*kit.OLDEST, *kit.NEWEST) in (ROOT / "README.md").read_text()


def test_each_pin_admits_the_oldest_python() -> None:
    oldest = "{}.{}.0".format(*kit.OLDEST)
    too_new = {}
    for name, version in constraints().items():
        try:
            admitted = importlib.metadata.metadata(name).get("Requires-Python", "")
        except importlib.metadata.PackageNotFoundError:
            continue  # not needed here
        if oldest not in SpecifierSet(admitted):
            too_new[f"{name}=={version}"] = admitted
    assert not too_new, f"constraints.txt does not install on Python {oldest} (make upgrade): {too_new}"


def test_conda_has_a_python_that_the_package_admits() -> None:
    (python,) = (e for e in ENVIRONMENT["dependencies"] if isinstance(e, str) and e.startswith("python="))
    admitted = Requirement(f"python{PROJECT['requires-python']}").specifier
    assert python.removeprefix("python=") in admitted


@pytest.mark.install
@pytest.mark.timeout(1500)
def test_a_fresh_environment_from_the_pip_section_of_environment_yml(tmp_path: Path) -> None:
    checkout = tmp_path / "c2f"
    for folder in ("c2f", "notebooks/c2f_course", "data/weights"):
        shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
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
        # From the folder that the checkout is in, where a folder c2f is that is not the package.
        assert "conv2former_n_cifar" in run(bin_ / "python", "-c", "import c2f; print(c2f.list_models())")
        assert run(bin_ / "c2f", "--help").startswith("usage: c2f")
        assert run(bin_ / "c2f", "course", "--help").startswith("usage: c2f course")
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


# A python3 that notes what it is asked and installs nothing: it copies constraints.txt, and only with the same one does
# an installation without the network succeed. Scripts are run by a real Python, which takes this one for itself.
# While the file "no-network" exists nothing is downloaded, and while "cut-off" exists pip dies half-way.
PRETENDER = """#!/bin/sh
site=.venv/lib/python3.11/site-packages
echo "$@" >> asked
case "$*" in
    *.py*) exec REAL -c '
import runpy, sys
sys.executable, *sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")' "$0" "$@" ;;
    */.venv/bin/tool*) shift; echo moved "$@" ;;
    "-m venv --without-pip .venv") ;;
    "-m venv .venv") mkdir -p .venv/bin $site/torch && cp "$0" .venv/bin/python ;;
    "-m pip install --dry-run"*) cat report.json ;;
    "-m pip install --no-index"*) cmp -s constraints.txt $site/installed ;;
    "-m pip install"*)
        if [ -e no-network ]; then echo "no network"; exit 1; fi
        if [ -e cut-off ]; then mkdir -p $site/half-1.0.dist-info; kill -KILL $PPID; exit 1; fi
        cp constraints.txt $site/installed ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "a folder with spaces"
    (folder / "docs").mkdir(parents=True)
    for name in ("Makefile", "kit.py", "pyproject.toml", "constraints.txt", "docs/renew_constraints.py"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "python3").write_text(PRETENDER.replace("REAL", f"'{sys.executable}'"))
    (folder / "python3").chmod(0o755)
    yield folder


def asked(folder: Path) -> list[str]:
    """What the pretender was asked since the last call, in short."""
    note = folder / "asked"
    lines = note.read_text().splitlines() if note.exists() else []
    note.unlink(missing_ok=True)
    return [" ".join(line.split()[1:4]) for line in lines if line.startswith("-m")]


MAKE, LOOK, LOCAL, DOWNLOAD = "venv .venv", "pip show --quiet", "pip install --no-index", "pip install -c"
TEST = ["ruff check", "pytest --numprocesses 2"]
LAB = ["c2f course lab"]


@NEEDS_MAKE
def test_the_first_call_installs_and_the_second_starts_at_once(checkout: Path) -> None:
    assert make("lab", "PYTHON=./python3", cwd=checkout).returncode == 0
    assert asked(checkout) == [MAKE, LOCAL, DOWNLOAD, *LAB]
    assert make("lab", "PYTHON=./python3", cwd=checkout).returncode == 0
    assert asked(checkout) == LAB
    assert make("test", "PYTHON=./python3", cwd=checkout).returncode == 0
    assert asked(checkout) == TEST


@NEEDS_MAKE
def test_options_are_passed_on(checkout: Path) -> None:
    make("install", "PYTHON=./python3", cwd=checkout)
    make("test", "PYTHON=./python3", "JOBS=7", "ARGS=tests/models -k 'one or two'", cwd=checkout)
    *_, line = (checkout / "asked").read_text().splitlines()
    assert line.endswith("--numprocesses 7 tests/models -k one or two")
    make("lab", "PYTHON=./python3", "ARGS=--no-browser", cwd=checkout)
    make("fresh", "PYTHON=./python3", "ARGS=02", cwd=checkout)
    *_, lab, fresh = [line for line in (checkout / "asked").read_text().splitlines() if line.startswith("-m c2f")]
    assert (lab, fresh) == ("-m c2f course lab -- --no-browser", "-m c2f course fresh 02")


@NEEDS_MAKE
@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_packages_that_are_there_need_no_network(checkout: Path, name: str) -> None:
    make("test", "PYTHON=./python3", cwd=checkout)
    (checkout / "no-network").touch()
    os.utime(checkout / ".venv" / "ready", (0, 0))
    asked(checkout)
    assert make("test", "PYTHON=./python3", cwd=checkout).returncode == 0
    assert asked(checkout) == [LOOK, LOCAL, *TEST]
    assert make("test", "PYTHON=./python3", cwd=checkout).returncode == 0
    assert asked(checkout) == TEST


@NEEDS_MAKE
def test_without_a_network_an_old_set_stays_usable_until_the_new_one_is_there(checkout: Path) -> None:
    make("test", "PYTHON=./python3", cwd=checkout)
    installed = checkout / ".venv" / "lib" / "python3.11" / "site-packages" / "installed"
    old = installed.read_text()
    os.utime(checkout / ".venv" / "ready", (0, 0))
    (checkout / "constraints.txt").write_text(f"{old}new==1\n")
    (checkout / "no-network").touch()
    asked(checkout)
    for _ in range(3):
        done = make("test", "PYTHON=./python3", cwd=checkout)
        assert done.returncode == 0 and "the old ones are used" in done.stdout
        assert asked(checkout) == [LOOK, LOCAL, DOWNLOAD, LOCAL, *TEST]  # the last LOCAL is the kit itself, alone
    assert installed.read_text() == old
    (checkout / "no-network").unlink()
    assert make("test", "PYTHON=./python3", cwd=checkout).returncode == 0
    assert asked(checkout) == [LOOK, LOCAL, DOWNLOAD, *TEST]
    assert installed.read_text() != old


@NEEDS_MAKE
def test_without_a_network_the_first_installation_fails(checkout: Path) -> None:
    (checkout / "no-network").touch()
    for _ in range(2):
        done = make("test", "PYTHON=./python3", cwd=checkout)
        assert done.returncode != 0 and "the installation failed" in done.stderr
        assert not {*TEST} & {*asked(checkout)}


@NEEDS_MAKE
def test_an_installation_that_was_cut_off_continues(checkout: Path) -> None:
    (checkout / "cut-off").touch()
    assert make("test", "PYTHON=./python3", cwd=checkout).returncode != 0
    assert asked(checkout) == [MAKE, LOCAL, DOWNLOAD]
    site = checkout / ".venv" / "lib" / "python3.11" / "site-packages"
    install(site, "whole")
    (checkout / "cut-off").unlink()
    second = make("test", "PYTHON=./python3", cwd=checkout)
    assert second.returncode == 0 and "half-1.0 is installed again" in second.stdout
    assert asked(checkout) == [LOOK, LOCAL, DOWNLOAD, *TEST]
    assert not (site / "half-1.0.dist-info").exists() and (site / "whole-1.0.dist-info").exists()


@NEEDS_MAKE
def test_a_renewal_that_was_cut_off_is_no_environment_that_works(checkout: Path) -> None:
    make("test", "PYTHON=./python3", cwd=checkout)
    os.utime(checkout / ".venv" / "ready", (0, 0))
    (checkout / "constraints.txt").write_text("new==1\n")
    (checkout / "cut-off").touch()
    assert make("test", "PYTHON=./python3", cwd=checkout).returncode != 0
    (checkout / "cut-off").unlink()
    (checkout / "no-network").touch()
    done = make("test", "PYTHON=./python3", cwd=checkout)
    assert done.returncode != 0 and "the installation failed" in done.stderr


@NEEDS_MAKE
def test_an_environment_that_somebody_else_made_is_not_deleted(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "theirs").touch()
    assert make("test", "PYTHON=./python3", cwd=checkout).returncode == 0
    assert (checkout / ".venv" / "theirs").exists()


@NEEDS_MAKE
def test_a_folder_that_was_moved_is_put_right_once_and_without_a_network(checkout: Path) -> None:
    make("test", "PYTHON=./python3", cwd=checkout)
    moved = checkout.rename(checkout.with_name("elsewhere ü"))
    bin_, binary = moved / ".venv" / "bin", b"\x7fELF\n#!/old/.venv/bin/python\n"
    (bin_ / "tool").write_text("#!/old/.venv/bin/python3.11\nimport sys\n")
    (bin_ / "tool").chmod(0o755)
    (bin_ / "binary").write_bytes(binary)
    (moved / "no-network").touch()
    asked(moved)
    make("test", "PYTHON=./python3", cwd=moved)
    assert asked(moved) == [LOOK, "venv --without-pip .venv", LOCAL, *TEST]
    assert subprocess.check_output([bin_ / "tool", "an argument"], cwd=moved, text=True) == "moved an argument\n"
    assert (bin_ / "binary").read_bytes() == binary
    make("test", "PYTHON=./python3", cwd=moved)
    assert asked(moved) == TEST


def test_an_environment_whose_python_is_gone_gets_another(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/nowhere/python3.11")
    done = subprocess.run(["./python3", "kit.py", "install"], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not python.is_symlink() and asked(checkout) == [MAKE, LOCAL, DOWNLOAD]


@NEEDS_MAKE
def test_upgrade_writes_the_new_set_for_the_oldest_python_under_the_old_heading(checkout: Path) -> None:
    versions = {
        "torch": "9.0",
        "numpy": "9.9",
        "c2f": "0.1",
        "nvidia-cublas": "13.1",
        "cuda-bindings": "1",
        "triton": "3",
    }
    packages = [{"metadata": {"name": name, "version": version}} for name, version in versions.items()]
    (checkout / "report.json").write_text(json.dumps({"install": packages}))
    done = make("upgrade", "PYTHON=./python3", cwd=checkout)
    heading = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("#")]
    assert (checkout / "constraints.txt").read_text().splitlines() == [*heading, "numpy==9.9", "torch==9.0"], done
    (resolved,) = (line for line in (checkout / "asked").read_text().splitlines() if "--dry-run" in line)
    assert "--python-version 3.11.0 --only-binary :all:" in resolved
    assert asked(checkout)[-2:] == [LOCAL, DOWNLOAD]  # and it is installed
    make("test", "PYTHON=./python3", cwd=checkout)
    assert asked(checkout) == TEST


# What is whole


def install(site: Path, name: str) -> Path:
    """A package of one module as pip leaves it. Returns its .dist-info folder."""
    folder = site / f"{name}-1.0.dist-info"
    folder.mkdir(parents=True)
    script = site.parents[2] / "bin" / name
    script.parent.mkdir(exist_ok=True)
    (site / f"{name}.py").write_text("x = 1\n")
    script.write_text("#!/bin/python\n")
    (folder / "INSTALLER").write_text("pip\n")
    rows = [
        [f"../../../bin/{name}", "sha256=x", 14],
        [f"{folder.name}/INSTALLER", "sha256=x", 4],
        [f"{name}.py", "", 6],
    ]
    rows.append([f"{folder.name}/RECORD", "", ""])
    with (folder / "RECORD").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def forget_the_installer(folder: Path) -> None:
    """The wheel's own list, which is there before pip's, and which pip replaces at the end."""
    lines = (folder / "RECORD").read_text().splitlines()
    (folder / "RECORD").write_text("\n".join(line for line in lines if "INSTALLER" not in line))


CUTS = {
    "no list yet": lambda folder: (folder / "RECORD").unlink(),
    "the wheel's own list": forget_the_installer,
    "a file is missing": lambda folder: (folder.parent / "name.py").unlink(),
    "a file is half": lambda folder: (folder.parent / "name.py").write_text("x ="),
    "a script is missing": lambda folder: (folder.parents[3] / "bin" / "name").unlink(),
}


@pytest.mark.parametrize("cut", CUTS)
def test_half_a_package_is_found(tmp_path: Path, cut: str) -> None:
    folder = install(tmp_path / "lib" / "python3.11" / "site-packages", "name")
    assert kit.is_complete(folder)
    (folder.parents[3] / "bin" / "name").write_text("#!/a/longer/path/to/python\n")  # as after a move
    assert kit.is_complete(folder)
    CUTS[cut](folder)
    assert not kit.is_complete(folder)


def test_each_package_that_pip_installed_here_is_whole() -> None:
    folders = list(Path(sysconfig.get_path("purelib")).glob("*.dist-info"))
    by_pip = [f for f in folders if (f / "INSTALLER").is_file() and (f / "INSTALLER").read_text().strip() == "pip"]
    assert [folder.name for folder in by_pip if not kit.is_complete(folder)] == []


# What cannot work is said in one sentence, before anything is downloaded


def as_if(monkeypatch: pytest.MonkeyPatch, **changes: object) -> str | None:
    """What kit.py says on another computer."""
    with monkeypatch.context() as patch:
        for name, value in changes.items():
            module, _, attribute = name.partition("_")
            patch.setattr(getattr(kit, module), attribute, value)
        return kit.why_not()


LINUX = {"sys_platform": "linux", "platform_machine": lambda: "x86_64", "platform_libc_ver": lambda: ("glibc", "2.36")}
MAC = {"sys_platform": "darwin", "platform_machine": lambda: "arm64", "platform_mac_ver": lambda: ("14.5", (), "")}
WINDOWS = {"sys_platform": "win32", "sysconfig_get_platform": lambda: "win-amd64"}


@pytest.mark.parametrize("system", [LINUX, {**LINUX, "platform_machine": lambda: "aarch64"}, MAC, WINDOWS])
def test_systems_that_torch_has_wheels_for(monkeypatch: pytest.MonkeyPatch, system: dict) -> None:
    assert as_if(monkeypatch, **system) is None


NO_WHEELS = {
    "an Intel Mac": {**MAC, "platform_machine": lambda: "x86_64"},
    "macOS 13": {**MAC, "platform_mac_ver": lambda: ("13.6", (), "")},
    "Windows on ARM": {**WINDOWS, "sysconfig_get_platform": lambda: "win-arm64"},
    "32 bits on Windows": {**WINDOWS, "sysconfig_get_platform": lambda: "win32", "sys_maxsize": 2**31 - 1},
    "32 bits on Linux": {**LINUX, "sys_maxsize": 2**31 - 1},
    "a Raspberry Pi's old system": {**LINUX, "platform_machine": lambda: "armv7l"},
    "Alpine": {**LINUX, "platform_libc_ver": lambda: ("", "")},
    "CentOS 7": {**LINUX, "platform_libc_ver": lambda: ("glibc", "2.17")},
    "PyPy": {**LINUX, "platform_python_implementation": lambda: "PyPy"},
    "free-threaded": {**LINUX, "sysconfig_get_config_var": lambda name: 1},
}


@pytest.mark.parametrize("system", NO_WHEELS)
def test_systems_that_torch_has_no_wheels_for(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    sentence = as_if(monkeypatch, **NO_WHEELS[system])
    assert sentence.startswith("c2f needs PyTorch, which exists for 64-bit CPython on Linux") and "\n" not in sentence


def test_pythons_that_are_too_old_or_too_new(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "c2f needs Python 3.11 or newer" in as_if(monkeypatch, sys_version_info=(3, 10, 13))
    newer = (3, kit.NEWEST[1] + 1, 0)
    assert f"which exists up to Python 3.{kit.NEWEST[1]}, and" in as_if(monkeypatch, sys_version_info=newer)


def test_an_old_python_can_read_that_it_is_too_old() -> None:
    ast.parse((ROOT / "kit.py").read_text(), feature_version=(3, 6))


@NEEDS_MAKE
@pytest.mark.parametrize(
    ("before", "sentence"),
    [
        ("sys.version_info = (3, 9, 2)", "c2f needs Python 3.11 or newer"),
        ("import importlib.util; importlib.util.find_spec = lambda name: None", "cannot make environments"),
    ],
)
def test_a_python_that_will_not_do_gets_one_sentence(checkout: Path, before: str, sentence: str) -> None:
    (checkout / "python3").write_text((checkout / "python3").read_text().replace("runpy.run", f"{before}\nrunpy.run"))
    done = make("-s", "lab", "PYTHON=./python3", cwd=checkout)
    said = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("make: ")]
    assert done.returncode != 0
    assert len(said) == 1 and sentence in said[0]
    assert not (checkout / ".venv").exists() and asked(checkout) == []


def test_a_full_disk_is_noticed_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"gigabytes": 100}
    for name in ("clone", "home", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(kit, "ROOT", tmp_path / "clone")
    monkeypatch.setattr(kit.Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(kit.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    monkeypatch.setattr(kit.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, free["gigabytes"] * 10**9))
    kit.check_disk()
    # On one disk: the environment, and the downloads as a temporary file and in pip's cache.
    needed = kit.INSTALLED_GB + 2 * kit.DOWNLOADED_GB
    free["gigabytes"] = needed - 1
    with pytest.raises(SystemExit, match=rf"needs {needed} GB on the disk of .*, and {needed - 1}\.0 GB are free$"):
        kit.check_disk()


def test_one_warning_of_python_3_13_0_is_no_error() -> None:
    sentence = "Guards may run slower on Python 3.13.0. Consider upgrading to Python 3.13.1+."
    warnings.warn(sentence, RuntimeWarning, stacklevel=1)
    with pytest.raises(RuntimeWarning):
        warnings.warn("Guards may run slower.", RuntimeWarning, stacklevel=1)


# What the commands start


@pytest.mark.slow
def test_lab_prints_an_address_that_opens_the_first_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(kit, "continue_as", lambda *command: started.extend(command))
    kit.lab(["--no-browser", "--port=0"])
    for package in ("c2f", "notebooks"):  # the copy that is made belongs into another clone than this one
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "XDG"))}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(tmp_path / "notebooks"), environment["PYTHONPATH"]])
    with subprocess.Popen(
        [sys.executable, "-m", *started], cwd=tmp_path, env=environment | {"HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as lab:  # fmt: skip
        try:
            address = next(line.split()[-1] for line in lab.stderr if re.search(r"http://\S+token=", line))
        finally:
            lab.kill()  # asked to end while it starts, it may go on for ever
    assert re.fullmatch(r"http://localhost:\d+/lab/tree/my_notebooks/00_start_here\.ipynb\?token=\w+", address)
    assert (tmp_path / "my_notebooks" / "00_start_here.ipynb").is_file()


# The package without a clone


def build(tmp_path: Path, kind: str) -> list[str]:
    """Build a wheel as pip does, without the network, and unpack it. Returns the names in it."""
    build = f"from hatchling.build import build_{kind}; print(build_{kind}({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", build], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        wheel.extractall(tmp_path / "unpacked")
        return [name for name in wheel.namelist() if ".dist-info/" not in name]


@pytest.mark.slow
def test_a_wheel_brings_the_weights_and_finds_them_from_any_folder(tmp_path: Path) -> None:
    names = build(tmp_path, "wheel")
    assert {name.split("/")[0] for name in names} == {"c2f", "c2f_course"}
    assert {f"c2f/data/weights/{path.name}" for path in (ROOT / "data" / "weights").iterdir()} <= {*names}
    (tmp_path / "empty").mkdir()
    model = "c2f.create_model('conv2former_mini_cifar', weights='cifar10')"
    code = f"import c2f, c2f_course.tasks; {model}; print(c2f.__file__)"
    environment = {name: value for name, value in os.environ.items() if name != "C2F_DATA"}
    environment["PYTHONPATH"] = str(tmp_path / "unpacked")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path / "empty", env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path / "unpacked" / "c2f" / "__init__.py"), done.stderr


def test_an_editable_installation_is_the_clone_itself(tmp_path: Path) -> None:
    (path,) = build(tmp_path, "editable")  # no folder c2f/ beside it, which would hide the package
    assert (tmp_path / "unpacked" / path).read_text().splitlines() == [str(ROOT), str(ROOT / "notebooks")]


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
