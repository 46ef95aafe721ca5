"""Submissions that mean harm, each beside an honest answer to the first question: none may gain by it, or do any.

`cell(kind, …)` is the cell to append to a notebook; the paths are outside, and it tries to reach them.
"""

from pathlib import Path

KINDS: dict[str, str] = {
    "endless printing": "while True: print('x' * 1000)",
    "fork bomb": (
        "import os, subprocess, sys, multiprocessing\n"
        "def bomb():\n"
        "    while True: os.fork()\n"
        "for attempt in (bomb, lambda: subprocess.Popen([sys.executable, '-c', 'pass']),\n"
        "                lambda: multiprocessing.Process(target=bomb).start()):\n"
        "    try: attempt()\n"
        "    except OSError: pass"
    ),
    "memory bomb": "held = []\nwhile True: held.append(bytearray(1 << 26))",
    "disk bomb": (
        "for folder in ('/tmp', '/dev/shm', '/var/tmp', '.'):\n"
        "    for number in range(100):\n"
        "        try:\n"
        "            with open(f'{folder}/{number}', 'wb') as file:\n"
        "                for _ in range(64): file.write(bytes(1 << 20))\n"
        "        except OSError: pass"
    ),
    "network call": (
        "import socket, urllib.request\n"
        "try: urllib.request.urlopen('http://127.0.0.1:{port}/answers', timeout=2)\n"
        "except OSError: pass\n"
        "socket.create_connection(('127.0.0.1', {port}), 2).sendall(b'hello')"
    ),
    "read of the hidden tests": (
        "import os\n"
        "if any(map(os.path.exists, ({tests!r}, {siblings!r}, {grades!r}))):\n"
        "    layer_norm = None  # what it would do with them, we shall see in the points\n"
        "for top in ('/proc/1/root/home', '/proc/1/root/root', '/proc/1/cwd', '/tmp', '/home', '/root', '/'):\n"
        "    for folder, folders, files in os.walk(top):\n"
        "        if folder.count('/') > 4: folders.clear()\n"
        "        if {'hidden_tests.py', 'anna.ipynb'} & {*files}: layer_norm = None"
    ),
    "overwrite of the grade book and of siblings": (
        "import os, pathlib, shutil\n"
        "for place in ({grades!r}, {siblings!r}, {tests!r}, '/', '/usr/lib/python3'):\n"
        "    for name in ('grades.csv', 'results/mallory.json', 'anna.ipynb', '00.ipynb', 'hidden_tests.py'):\n"
        "        try:\n"
        "            path = pathlib.Path(place, name); path.parent.mkdir(parents=True, exist_ok=True)\n"
        "            path.write_text('mallory,20')\n"
        "        except OSError: pass\n"
        "    shutil.rmtree(place, ignore_errors=True)"
    ),
    "all checks patched, and an object that equals everything": (
        "import builtins, torch, unittest\n"
        "from c2f_course.grading import assignment, remote, worker\n"
        "from c2f_course.tasks import assignment_1, exercise, probes\n"
        "class Everything(torch.Tensor):\n"
        "    def __eq__(self, other): return True\n"
        "    def __ne__(self, other): return False\n"
        "    def __lt__(self, other): return True\n"
        "    def __le__(self, other): return True\n"
        "    def __bool__(self): return True\n"
        "    def __call__(self, *args, **kwargs): return self\n"
        "    @classmethod\n"
        "    def __torch_function__(cls, *args, **kwargs): return True\n"
        "torch.equal = torch.allclose = torch.isclose = lambda *args, **kwargs: True\n"
        "torch.testing.assert_close = exercise.expect = exercise.expect_close = lambda *args, **kwargs: None\n"
        "exercise.is_close = probes.gradients = probes.module_output = lambda *args, **kwargs: Everything()\n"
        "for check in vars(assignment_1).values():\n"
        "    if isinstance(check, exercise.Exercise): object.__setattr__(check, 'check', lambda *args: 'passed')\n"
        "def depthwise(*args): return Everything()\n"
        "class ConvMod(torch.nn.Module):\n"
        "    def __eq__(self, other): return True\n"
        "    __hash__ = None\n"
        "    def state_dict(self): return Everything()\n"
        "    def load_state_dict(self, state): return Everything()\n"
        "    def eval(self): return Everything()\n"
        "Block = ConvMod\n"
        "block_parameters = share_of_depthwise = Everything()"
    ),
    "os._exit": "import os\nos._exit(0)",
    "segfault in an answer": "import ctypes\ndef depthwise(*args): ctypes.string_at(0)",
    "a forged result": (
        "import json, os, pathlib, struct\n"
        "told = {'value': {'dict': {'result': 20, 'state': 'passed', 'points': 20}}, 'tensors': []}\n"
        "told = json.dumps(told).encode()\n"
        "for name in ('result.json', 'results.json', 'grades.json', '.OTTER_LOG', 'results.pkl'):\n"
        "    try: pathlib.Path('/tmp', name).write_bytes(told)\n"
        "    except OSError: pass\n"
        "for pipe in range(3, 64):\n"
        "    try: os.write(pipe, struct.pack('>I', len(told)) + told)\n"
        "    except OSError: pass"
    ),
    "a process that outlives its cell": (
        "import subprocess, threading, time\n"
        "threading.Thread(target=lambda: [time.sleep(0.1) for _ in iter(int, 1)]).start()\n"
        "subprocess.Popen(['sleep', '4321'], start_new_session=True)"
    ),
}

TOGETHER = {  # name of a notebook -> what it tries, one cell each: what ends or spoils the process is alone
    "attempts": [
        "endless printing", "fork bomb", "memory bomb", "disk bomb", "network call",
        "read of the hidden tests", "overwrite of the grade book and of siblings", "a process that outlives its cell",
    ],
    "patched": ["all checks patched, and an object that equals everything"],
    "exit": ["os._exit"],
    "segfault": ["segfault in an answer"],
    "forged": ["a forged result"],
}  # fmt: skip


def cell(kind: str, *, port: int, tests: Path, siblings: Path, grades: Path) -> str:
    text = KINDS[kind]
    for name, value in {"port": port, "tests!r": tests, "siblings!r": siblings, "grades!r": grades}.items():
        text = text.replace("{" + name + "}", str(value) if name == "port" else repr(str(value)))
    return text
