"""Run a student's notebook where it can reach nothing: no network, no other file, no other process (bubblewrap).

    with run_submission(code, Limits()) as remote:
        remote.ask("errors")
        remote.get("layer_norm")(x)

Inside, the file system holds Python, its packages, c2f and c2f_course without the rest of the repository, the kit's
data, and the one notebook's code, all of it read-only; /tmp is small and in memory. docs/threat_model.md says what is
promised, and what is not.
"""

import contextlib
import errno
import json
import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import c2f
import c2f_course
from c2f.files import data_folder
from c2f_course.grading.remote import Remote

GIB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """What one submission may use, and whether it runs in the sandbox."""

    seconds: float = 120.0  # of wall-clock time, for the notebook and all questions together
    cell_seconds: int = 30  # for one cell of the notebook; then it is interrupted, and the cells below it run
    answer_seconds: float = 20.0  # for one question
    memory: int = 4 * GIB  # bytes of its own; beside that it may map files, such as torch's libraries
    disk: int = GIB // 4  # bytes in /tmp, and of its largest file
    threads: int = 1  # for torch
    sandboxed: bool = True  # without, it runs as you, with all that you may do: only for code that you trust

    def apply(self) -> None:
        """Called in the worker, before any of the student's code: from here on nobody can raise these again."""
        import resource

        limits = {"DATA": self.memory, "AS": self.memory + 12 * GIB, "FSIZE": self.disk, "CORE": 0, "NOFILE": 256}
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


@contextlib.contextmanager
def run_submission(code: Sequence[str], limits: Limits) -> Iterator[Remote]:
    """The process that runs the code cells of a notebook; afterwards it and all that it started are gone.

    Raises RuntimeError where there is no bubblewrap, and where this system can run no submission at all.
    """
    if why := why_not(limits.sandboxed):
        raise RuntimeError(why)
    with tempfile.TemporaryDirectory(prefix="c2f-") as folder:
        task = Path(folder, "answer.json")
        task.write_text(json.dumps({"code": list(code), "limits": asdict(limits)}))
        command, passed = [sys.executable, "-m", "c2f_course.grading.worker", str(task)], []
        if limits.sandboxed:
            command[-1] = "/answer.json"
            passed = [os.memfd_create("filter")]
            os.write(passed[0], system_call_filter(platform.machine()))
            os.lseek(passed[0], 0, os.SEEK_SET)
            command = [*_bubblewrap(task, limits, passed[0]), *command]
        process = subprocess.Popen(
            command, pass_fds=passed, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True, cwd=folder,
        )  # fmt: skip
        for file in passed:
            os.close(file)

        def end() -> None:
            """Kill it, and with it all that it started: its namespace, or without the sandbox its group."""
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

        try:
            yield Remote(process.stdout, process.stdin, end, limits.answer_seconds, time.monotonic() + limits.seconds)
        finally:
            end()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # a question that the process did not read
                    pipe.close()
            process.wait()


def why_not(sandboxed: bool = True) -> str | None:
    """Why no submission can be run here, in the sandbox or without, and what would help; None where it can."""
    # Limits, alarms and the pipes to a submission's process: Windows has none of them.
    if platform.system() == "Windows":
        return "grading needs Linux: install WSL (`wsl --install`), and run the same command there."
    if not sandboxed:
        return None
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


def _bubblewrap(code: Path, limits: Limits, filter_: int) -> list[str]:
    from c2f.models.weights import weights_folders  # seconds of import that the worker does not have to wait for

    packages = [Path(package.__file__).parent for package in (c2f, c2f_course)]
    seen = {Path("/usr"), Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parents[1]}
    seen |= set(packages)
    data = data_folder()
    seen |= {folder for folder in (*weights_folders(), data / "cache") if folder.is_dir()}
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    command += ["--uid", "65534", "--gid", "65534", "--hostname", "sandbox", "--clearenv"]
    for path in ("/bin", "/sbin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime"):
        command += ["--ro-bind-try", path, path]
    command += ["--ro-bind", str(code), "/answer.json", "--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/dev/shm"):
        command += ["--size", str(limits.disk), "--tmpfs", folder]
    for path in sorted(seen):  # after /tmp, which may hold them, too
        command += ["--ro-bind", str(path), str(path)]
    settings = {
        "PATH": os.defpath, "HOME": "/tmp", "LANG": "C.UTF-8", "MPLBACKEND": "agg", "C2F_DATA": str(data),
        "OMP_NUM_THREADS": str(limits.threads), "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(str(package.parent) for package in packages),
    }  # fmt: skip
    for setting in settings.items():
        command += ["--setenv", *setting]
    # What bubblewrap made itself is memory, which nobody may fill; and root must not write into /proc/sys.
    for folder in ("/proc", "/dev", "/"):
        command += ["--remount-ro", folder]
    return [*command, "--chdir", "/tmp", "--seccomp", str(filter_)]


# ---- A filter of system calls: threads may be started, processes may not

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_… of linux/audit.h
CLONE, MMAP = {"x86_64": 56, "aarch64": 220}, {"x86_64": 9, "aarch64": 222}
CLONE3, CLONE_THREAD = 435, 0x00010000
SHARED_ANONYMOUS, ITS_BITS = 0x21, 0x2F  # memory that the limit on data does not count
REFUSED = {  # number on x86_64, on aarch64: processes, memory of that kind, and what no assignment needs
    "fork": (57, None), "vfork": (58, None), "ptrace": (101, 117), "mount": (165, 40), "unshare": (272, 97),
    "setns": (308, 268), "bpf": (321, 280), "userfaultfd": (323, 282), "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194),
}  # fmt: skip


def system_call_filter(machine: str) -> bytes:
    """The filter as classic BPF, for `bwrap --seccomp` (see seccomp(2) and linux/filter.h)."""
    load, equal, any_bit, bits, give = 0x20, 0x15, 0x45, 0x54, 0x06  # each with two jumps and a number
    allow, kill, refuse = (give, 0, 0, 0x7FFF0000), (give, 0, 0, 0x80000000), (give, 0, 0, 0x00050000 | errno.EPERM)
    column = list(ARCHITECTURES).index(machine)
    program = [
        (load, 0, 0, 4), (equal, 1, 0, ARCHITECTURES[machine]), kill,  # another architecture's calls
        (load, 0, 0, 0),
        # clone3 keeps its flags where a filter cannot read them: "not there", and the C library takes clone instead
        (equal, 0, 1, CLONE3), (give, 0, 0, 0x00050000 | errno.ENOSYS),
    ]  # fmt: skip
    for number in (pair[column] for pair in REFUSED.values() if pair[column] is not None):
        program += [(equal, 0, 1, number), refuse]
    program += [
        (equal, 0, 5, MMAP[machine]), (load, 0, 0, 40), (bits, 0, 0, ITS_BITS), (equal, 0, 1, SHARED_ANONYMOUS),
        refuse, allow,
        (equal, 0, 3, CLONE[machine]), (load, 0, 0, 16), (any_bit, 1, 0, CLONE_THREAD), refuse, allow,
    ]  # fmt: skip
    return b"".join(struct.pack("HBBI", *line) for line in program)
