"""Run a student's notebook where it can reach nothing: no network, no other file, no other process (bubblewrap).

    with Submission(path, Limits()) as student:
        student.ask("errors")
        student.get("layer_norm")(x)

Inside, the file system holds Python, its packages, c2f and c2f_course without the rest of the repository, the kit's
data, and the one notebook, all of it read-only; /tmp is small and in memory. What is promised, and what is not, is in
docs/threat_model.md.
"""

import errno
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import c2f
import c2f_course
from c2f.files import data_folder
from c2f.models.weights import weights_folders
from c2f_course.grading.remote import Remote

GIB = 1 << 30


class SandboxError(RuntimeError):
    """There is no sandbox on this computer; the message says what to install."""


@dataclass(frozen=True)
class Limits:
    """What one submission may use."""

    seconds: float = 120.0
    """Of wall-clock time, for the notebook and all questions together."""
    cell_seconds: int = 30
    """For one cell of the notebook; then it is interrupted, and the cells below it run."""
    answer_seconds: float = 20.0
    """For one question."""
    memory: int = 4 * GIB
    """Bytes of its own; beside that it may map files, such as torch's libraries."""
    disk: int = GIB // 4
    """Bytes in /tmp, and of its largest file."""
    threads: int = 1
    """That torch computes with."""

    def apply(self) -> None:
        """Called in the worker, before any of the student's code: from here on nobody can raise these again."""
        import resource

        for what, value in (
            (resource.RLIMIT_DATA, self.memory),
            (resource.RLIMIT_AS, self.memory + 12 * GIB),
            (resource.RLIMIT_FSIZE, self.disk),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_NOFILE, 256),
        ):
            resource.setrlimit(what, (value, value))


class Submission:
    """A student's process. Made with `with`; at its end the process and whatever it started are gone.

    Args:
        notebook: the file; it is copied before anything runs.
        limits: of time, memory, disk.
        sandboxed: without, it runs as you, with all that you may do: only for code that you would run anyway.

    Raises SandboxError where there is no bubblewrap, and where this system can run no submission at all.
    """

    def __init__(self, notebook: Path, limits: Limits | None = None, sandboxed: bool = True) -> None:
        self.notebook, self.limits, self.sandboxed = Path(notebook), limits or Limits(), sandboxed
        if why := why_not() if sandboxed else why_nothing_runs():
            raise SandboxError(why)

    def __enter__(self) -> Remote:
        self._folder = tempfile.TemporaryDirectory(prefix="c2f-")
        copy = Path(self._folder.name, "answer.ipynb")
        shutil.copyfile(self.notebook, copy)
        to_read, from_write = os.pipe()
        from_read, to_write = os.pipe()
        passed = [from_read, from_write]
        try:
            command = [sys.executable, "-m", "c2f_course.grading.worker"]
            command += ["/answer.ipynb" if self.sandboxed else str(copy), str(from_read), str(from_write)]
            limits = self.limits
            command += map(str, (limits.memory, limits.disk, limits.threads, limits.cell_seconds))
            if self.sandboxed:
                filter_ = _filter_file()
                passed.append(filter_)
                command = [*_bubblewrap(copy, self.limits, filter_), *command]
            self._process = subprocess.Popen(
                command, pass_fds=passed, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True, cwd=self._folder.name,
            )  # fmt: skip
        finally:
            for pipe in passed:
                os.close(pipe)
        until = time.monotonic() + self.limits.seconds
        self._remote = Remote(to_read, to_write, self.limits.answer_seconds, until)
        return self._remote

    def __exit__(self, *raised: Any) -> None:
        self._remote.close()
        self._process.kill()  # and with it, its namespace of processes
        self._process.wait()
        self._folder.cleanup()


def why_not() -> str | None:
    """Why there can be no sandbox here, and what would help; None where there can be one."""
    if why := why_nothing_runs():
        return why
    if platform.system() != "Linux":
        return "the sandbox needs Linux (a virtual machine will do); or grade with --no-sandbox what you trust."
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed: apt install bubblewrap; or grade with --no-sandbox what you trust."
    if platform.machine() not in ARCHITECTURES:
        return f"the sandbox knows no {platform.machine()}; or grade with --no-sandbox what you trust."
    trial = "bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp true"
    tried = subprocess.run(trial.split(), capture_output=True, text=True, timeout=20)
    if tried.returncode:
        return f"bubblewrap cannot make namespaces here ({tried.stderr.strip()}); allow user namespaces."
    return None


def why_nothing_runs() -> str | None:
    """Why not even a submission that is trusted can be run here; None where it can."""
    # Limits, alarms and the pipes to a submission's process: Windows has none of them.
    if platform.system() == "Windows":
        return "grading needs Linux: install WSL (`wsl --install`), and run the same command there."
    return None


def _bubblewrap(notebook: Path, limits: Limits, filter_: int) -> list[str]:
    packages = [Path(package.__file__).parent for package in (c2f, c2f_course)]
    seen = {Path("/usr"), Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parents[1]}
    seen |= set(packages)
    data = data_folder()
    seen |= {folder for folder in (*weights_folders(), data / "cache") if folder.is_dir()}
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    command += ["--uid", "65534", "--gid", "65534", "--hostname", "sandbox", "--clearenv"]
    for name in ("bin", "sbin", "lib", "lib64"):
        path = Path("/", name)
        if path.is_symlink():
            command += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            command += ["--ro-bind", str(path), str(path)]
    for file in ("/etc/ld.so.cache", "/etc/localtime"):
        command += ["--ro-bind-try", file, file]
    command += ["--ro-bind", str(notebook), "/answer.ipynb", "--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/dev/shm"):
        command += ["--size", str(limits.disk), "--tmpfs", folder]
    for path in sorted(seen):  # after /tmp, which may hold them, too
        command += ["--ro-bind", str(path), str(path)]
    settings = {
        "PATH": os.defpath, "HOME": "/tmp", "LANG": "C.UTF-8", "MPLBACKEND": "agg", "C2F_DATA": str(data),
        "OMP_NUM_THREADS": str(limits.threads), "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(str(package.parent) for package in packages),
    }  # fmt: skip
    for name, value in settings.items():
        command += ["--setenv", name, value]
    # What bubblewrap itself made to hang all this in is memory, too; nobody shall fill it.
    return [*command, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp", "--seccomp", str(filter_)]


# ---- A filter of system calls: threads may be started, processes may not

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_… of linux/audit.h
CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3, CLONE_THREAD = 435, 0x00010000
REFUSED = {  # number on x86_64, on aarch64: processes, and what has no business in an assignment
    "fork": (57, None), "vfork": (58, None), "ptrace": (101, 117), "mount": (165, 40), "unshare": (272, 97),
    "setns": (308, 268), "bpf": (321, 280), "userfaultfd": (323, 282), "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
}  # fmt: skip


def system_call_filter(machine: str) -> bytes:
    """The filter as classic BPF, for `bwrap --seccomp` (see seccomp(2) and linux/filter.h)."""
    load, equal, any_bit, give = 0x20, 0x15, 0x45, 0x06
    allow, kill = 0x7FFF0000, 0x80000000

    def refuse(number: int) -> int:
        return 0x00050000 | number

    column = list(ARCHITECTURES).index(machine)
    numbers = [pair[column] for pair in REFUSED.values() if pair[column] is not None]
    program = [
        (load, 0, 0, 4), (equal, 1, 0, ARCHITECTURES[machine]), (give, 0, 0, kill),  # another architecture's calls
        (load, 0, 0, 0),
        # clone3 keeps its flags where a filter cannot read them: "not there", and the C library takes clone instead
        (equal, 0, 1, CLONE3), (give, 0, 0, refuse(errno.ENOSYS)),
    ]  # fmt: skip
    for number in numbers:
        program += [(equal, 0, 1, number), (give, 0, 0, refuse(errno.EPERM))]
    program += [
        (equal, 0, 3, CLONE[machine]), (load, 0, 0, 16), (any_bit, 1, 0, CLONE_THREAD),
        (give, 0, 0, refuse(errno.EPERM)), (give, 0, 0, allow),
    ]  # fmt: skip
    return b"".join(struct.pack("HBBI", *line) for line in program)


def _filter_file() -> int:
    """A file descriptor from which bubblewrap reads the filter."""
    file = os.memfd_create("filter")
    os.write(file, system_call_filter(platform.machine()))
    os.lseek(file, 0, os.SEEK_SET)
    return file
