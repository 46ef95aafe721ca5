"""Install everything into .venv, and open or test the kit. `make lab` and `make test` call this file.

    python3 kit.py lab          open the course in JupyterLab; further options go to JupyterLab
    python3 kit.py fresh 02     put a fresh copy of that notebook into my_notebooks, beside yours
    python3 kit.py test         run ruff, the tests and every notebook; further options go to pytest
    python3 kit.py install      only install what these need

On Windows: `py kit.py lab`. An environment that works is never removed: pip changes it after everything has been
downloaded, and until then it stays usable. Old Pythons can read this file, so that it can say that they are too old.
"""

import csv
import importlib.util
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = Path(".venv")  # in ROOT, where main goes
PY = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
READY = VENV / "ready"  # contains the folder that .venv was made in, and is newer than these two:
SET = ("pyproject.toml", "constraints.txt")
WHAT = ("-c", "constraints.txt", "-e", ".[lab,test]")
SHEBANG = re.compile(rb"#!.*python.*\n|#!/bin/sh\n'''exec' .*\n' '''\n")  # of a script that pip made
OFFLINE = ("--no-index", "--no-build-isolation")

OLDEST, NEWEST = (3, 11), (3, 14)  # Python: pyproject.toml's, and the newest that the pinned torch has wheels for
WHEELS = "for 64-bit CPython on Linux (x86-64, ARM; glibc 2.28 or newer), Windows (x86-64), macOS 14 (Apple silicon)"
INSTALLED_GB, DOWNLOADED_GB = (6, 3) if sys.platform == "linux" else (2, 1)  # Linux: CUDA's libraries


def main():
    os.chdir(str(ROOT))
    command = COMMANDS.get("".join(sys.argv[1:2])) or sys.exit(__doc__)
    if not is_ready():
        install()
    command(sys.argv[2:])


def lab(options):
    continue_as("c2f", "course", "lab", "--", *options)


def fresh(options):
    continue_as("c2f", "course", "fresh", *options)


def test(options):
    if in_venv("ruff", "check"):
        sys.exit(1)
    continue_as("pytest", "--numprocesses", "2", "--dist", "loadfile", "--no-loadscope-reorder", *options)


COMMANDS = {"lab": lab, "fresh": fresh, "test": test, "install": lambda options: None}


def is_ready():
    return is_here() and all(READY.stat().st_mtime >= Path(name).stat().st_mtime for name in SET)


def is_here():
    """Whether .venv was ready once, in this folder."""
    return READY.is_file() and READY.read_bytes().strip() == os.fsencode(str(ROOT))


def install():
    """Make or renew .venv: with the packages that it has, which needs no network, or else with what pip downloads."""
    incomplete = incomplete_packages()
    works = READY.is_file() and not incomplete
    for folder in incomplete:  # without this folder the package is absent for pip, which then installs all of it
        print(f"c2f: {folder.stem} is installed again, since an earlier installation was cut off")
        shutil.rmtree(str(folder))
    if in_venv("pip", "show", "--quiet", "pip", quiet=True):
        make_environment()
    elif works and not is_here():
        follow_a_move()
    print("c2f: installing what is not in .venv yet", flush=True)
    if in_venv("pip", "install", *OFFLINE, *WHAT, quiet=True):
        if not list(site_packages("torch")):
            check_disk()
        if in_venv("pip", "install", *WHAT):
            if not works or incomplete_packages():
                sys.exit("c2f: the installation failed, see above; the next call continues with what was downloaded")
            in_venv("pip", "install", *OFFLINE, "--no-deps", "-e", ".", quiet=True)  # c2f's own folder may be new
            print("c2f: the new versions could not be installed, see above; until the next call the old ones are used")
            return
    # Otherwise Lab asks each newcomer whether it may fetch news, and looks for updates.
    settings = VENV / "etc" / "jupyter" / "labconfig" / "page_config.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text('{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}\n')
    READY.write_bytes(os.fsencode(str(ROOT)))


def follow_a_move():
    """Put the folder's new path where `activate` and the scripts contain the old one."""
    in_venv("venv", "--without-pip", str(VENV), quiet=True)
    start = b"""#!/bin/sh\n'''exec' "%s" "$0" "$@"\n' '''\n""" % os.fsencode(str(ROOT / PY))  # pip's, for any path
    for script in PY.parent.iterdir():
        content = b"" if script.is_symlink() or os.name != "posix" else script.read_bytes()
        if SHEBANG.match(content):
            script.write_bytes(SHEBANG.sub(lambda _: start, content, 1))


def make_environment():
    reason = why_not()
    if reason:
        sys.exit(reason)
    for link in PY.parent.glob("python*"):
        if not link.exists():  # the Python that it was made from is gone, and venv keeps a link that is there
            link.unlink()
    if subprocess.call([sys.executable, "-m", "venv", str(VENV)]):
        sys.exit(f"c2f: '{sys.executable}' could not make the environment .venv, see above")


def why_not():
    """Why this Python cannot run the kit, in one sentence before anything is downloaded; None where it can."""
    this = f"'{sys.executable}' is {platform.python_version()}"
    another = "py -3.12 kit.py lab" if os.name == "nt" else "make lab PYTHON=python3.12"
    if sys.version_info[:2] < OLDEST:
        return f"c2f needs Python 3.11 or newer, and {this}: try {another}"
    if sys.version_info[:2] > NEWEST:
        return f"c2f needs PyTorch, which exists up to Python {NEWEST[0]}.{NEWEST[1]}, and {this}: try {another}"
    if not torch_has_wheels():
        here = f"{platform.python_implementation()} for {sysconfig.get_platform()} on {platform.platform()}"
        return f"c2f needs PyTorch, which exists {WHEELS}, and '{sys.executable}' is {here}"
    if importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"):
        return None
    remedy = "install its venv module (Debian, Ubuntu: apt install python3-venv)"
    return f"c2f: '{sys.executable}' cannot make environments: {remedy}"


def torch_has_wheels():
    if sys.platform == "linux":
        libc, version = platform.libc_ver()
        recent = libc == "glibc" and tuple(map(int, version.split("."))) >= (2, 28)
        fits = recent and platform.machine() in ("x86_64", "aarch64")
    elif sys.platform == "darwin":
        fits = platform.machine() == "arm64" and int(platform.mac_ver()[0].split(".")[0]) >= 14
    else:
        fits = sysconfig.get_platform() == "win-amd64"
    free_threaded = sysconfig.get_config_var("Py_GIL_DISABLED")  # torch has wheels for these, other packages none
    return fits and sys.maxsize > 2**32 and platform.python_implementation() == "CPython" and not free_threaded


def check_disk():
    """Stop where a disk is too small for what it must hold: .venv, pip's temporary files, pip's cache."""
    places = {ROOT: INSTALLED_GB, Path(tempfile.gettempdir()): DOWNLOADED_GB, Path.home(): DOWNLOADED_GB}
    disks = {place: place.stat().st_dev for place in places if place.is_dir()}
    for place, disk in disks.items():
        needed = sum(places[other] for other in disks if disks[other] == disk)
        free = shutil.disk_usage(str(place)).free / 1e9
        if free < needed:
            sys.exit(f"c2f: the installation needs {needed} GB on the disk of {place}, and {free:.1f} GB are free")


def site_packages(pattern):
    return [path for site in ("lib/python3*", "Lib") for path in VENV.glob(f"{site}/site-packages/{pattern}")]


def incomplete_packages():
    """The .dist-info folders of packages whose installation was cut off: half a package can pass for a whole one."""
    return [folder for folder in site_packages("*.dist-info") if not is_complete(folder)]


def is_complete(folder):
    """pip writes RECORD, the list of a package's files, at the end, and INSTALLER is in it then."""
    try:
        with (folder / "RECORD").open(newline="", encoding="utf-8") as file:
            sizes = {name: int(size) for name, _, size in csv.reader(file) if size}
        found = {name: (folder.parent / name).stat().st_size for name in sizes}
    except (OSError, ValueError):
        return False
    in_place = {name for name in sizes if not name.startswith("..")}  # what is at ../../../bin changes with a move
    return f"{folder.name}/INSTALLER" in sizes and all(found[name] == sizes[name] for name in in_place)


def in_venv(module, *arguments, quiet=False):
    """Run a module with the environment's Python. Returns its exit status, 1 also where there is no such Python."""
    output = subprocess.DEVNULL if quiet else None
    try:
        return subprocess.call([str(PY), "-m", module, *arguments], stdout=output, stderr=output)
    except OSError:
        return 1


def continue_as(module, *arguments):
    """End as that module. Ctrl-C is for the module alone, so it takes this process's place where a system has that."""
    command = [str(PY), "-m", module, *arguments]
    if os.name == "posix":
        sys.stdout.flush()
        os.execv(command[0], command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(subprocess.call(command))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("c2f: stopped; the next call continues")
