"""`make lab`, as a learner uses it: JupyterLab in Chromium, the first notebook run from the menu to its last cell."""

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image

sync_api = pytest.importorskip("playwright.sync_api")

ROOT = Path(__file__).parents[2]
FIRST = Path("my_notebooks/00_start_here.ipynb")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# A container has no sandbox and no GPU; and a browser under test looks up nothing of its own.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed"),
    # Playwright's own loop and Lab's sockets are still closing when Python looks.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]


@dataclass(frozen=True)
class Lab:
    url: str
    token: str

    def api(self, path: str) -> list | dict:
        request = urllib.request.Request(f"{self.url}/api/{path}", headers={"Authorization": f"token {self.token}"})
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.load(response)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# The shell waits for the end of its input: that comes when the test closes it, and also when the test itself is killed.
# Then everything it started is told to end. (Kernels are in groups of their own; their server ends them.)
UNTIL_INPUT_ENDS = 'make "$@" & trap "" TERM; read -r _; kill -TERM 0; wait'


def stop(process: subprocess.Popen) -> None:
    """End the server, and return when nobody of its group is left."""
    process.stdin.close()
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            process.poll()
            os.killpg(process.pid, 0)  # is anybody left?
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Another clone, so that neither the stored outputs nor a developer's own my_notebooks can be written over."""
    copy = tmp_path / "c2f"
    for name in ("Makefile", "kit.py", "pyproject.toml", "constraints.txt"):
        copy.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, copy)
    for name in ("c2f", "notebooks"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__"))
    # The environment is the one that runs this test, and it is ready: what `make lab` does in its second call.
    python = copy / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (copy / ".venv" / "ready").write_text(str(copy))
    return copy


@pytest.fixture
def lab(checkout: Path) -> Iterator[Lab]:
    home, port, token = checkout.parent / "home", free_port(), secrets.token_hex(16)
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "JUPYTER", "XDG"))}
    packages = [str(checkout), str(checkout / "notebooks"), environment["PYTHONPATH"]]
    environment |= {"PYTHONPATH": os.pathsep.join(packages), "C2F_DATA": str(ROOT / "data")}
    options = f"--no-browser --port={port} --ServerApp.port_retries=0 --IdentityProvider.token={token}"
    log = checkout.parent / "lab.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            ["sh", "-c", UNTIL_INPUT_ENDS, "sh", "lab", f"PYTHON={sys.executable}", f"ARGS={options}"],
            stdin=subprocess.PIPE,
            cwd=checkout,
            env=environment | {"HOME": str(home)},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            lab = Lab(f"http://127.0.0.1:{port}", token)
            wait_until_it_answers(lab, process, log)
            yield lab
        finally:
            stop(process)


def wait_until_it_answers(lab: Lab, process: subprocess.Popen, log: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            lab.api("status")
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"JupyterLab does not answer:\n{log.read_text()[-3000:]}")


@pytest.fixture
def page(tmp_path: Path) -> Iterator["sync_api.Page"]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def open_notebook(page: "sync_api.Page", lab: Lab, name: str) -> None:
    """Open it at the address that `make lab` opens, and wait until its kernel is there."""
    page.goto(f"{lab.url}/lab/tree/{name}?token={lab.token}")
    page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook-cell").first.wait_for()
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()  # any sooner, and Run asks for a kernel


def choose(page: "sync_api.Page", menu: str, entry: str) -> None:
    page.locator(".lm-MenuBar-itemLabel", has_text=menu).first.click()
    page.locator(".lm-Menu-itemLabel", has_text=entry).first.click()


def run_all(page: "sync_api.Page", seconds: float) -> None:
    """From the menu, to the last cell. Cleared first: a count seen afterwards is of this run, not a stored one."""
    choose(page, "Edit", "Clear Outputs of All Cells")
    choose(page, "Run", "Run All Cells")
    last = page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt").last
    sync_api.expect(last).to_have_text(re.compile(r"\[\d+\]:"), timeout=seconds * 1000)


def read_saved(page: "sync_api.Page", path: Path) -> nbformat.NotebookNode:
    """What a learner who saves now has in the file."""
    before = path.stat().st_mtime_ns
    choose(page, "File", "Save Notebook")
    for _ in range(150):
        page.wait_for_timeout(200)
        if path.stat().st_mtime_ns != before:
            with contextlib.suppress(nbformat.reader.NotJSONError):  # Lab is still writing
                return nbformat.read(path, as_version=4)
    pytest.fail("the notebook was not saved")


def assert_ran_clean(notebook: nbformat.NotebookNode) -> None:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert [output.evalue for output in outputs if output.output_type == "error"] == []
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []


def small_notebook(path: Path) -> None:
    """A slider and a picture: what a notebook of ours is made of."""
    path.parent.mkdir(exist_ok=True)
    cells = [
        new_markdown_cell("# A small notebook"),
        new_code_cell("import ipywidgets\nipywidgets.IntSlider(3)"),
        new_code_cell("import matplotlib.pyplot as plt\nplt.plot([1, 3, 2]);"),
        new_code_cell("print('the last cell')"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


def picture(page: "sync_api.Page", path: Path) -> None:
    page.screenshot(path=path)
    print(f"screenshot: {path}")


def test_lab_runs_a_slider_and_a_plot(lab: Lab, checkout: Path, page: "sync_api.Page", tmp_path: Path) -> None:
    small_notebook(checkout / "notebooks" / "small.ipynb")
    open_notebook(page, lab, "notebooks/small.ipynb")
    run_all(page, seconds=60)
    page.locator(".widget-slider .noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    sync_api.expect(page.locator(".widget-readout")).to_have_text("4")
    picture(page, tmp_path / "small.png")
    assert_ran_clean(read_saved(page, checkout / "notebooks" / "small.ipynb"))


@pytest.mark.timeout(900)  # a minute or two by itself; several on a computer that is busy with something else
def test_make_lab_runs_the_first_notebook(lab: Lab, checkout: Path, page: "sync_api.Page", tmp_path: Path) -> None:
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    open_notebook(page, lab, str(FIRST))
    picture(page, tmp_path / "opened.png")
    run_all(page, seconds=600)
    picture(page, tmp_path / "last_cell.png")
    assert_ran_clean(read_saved(page, checkout / FIRST))
    assert (checkout / "notebooks" / FIRST.name).read_bytes() == (ROOT / "notebooks" / FIRST.name).read_bytes()
    assert complaints == []


# The explorers, each driven by keyboard alone.

PHOTOGRAPHS = """
from c2f import create_model
from c2f.training.sources.photographs import load_photographs
photographs = load_photographs()
images, names = photographs.images, photographs.names
trained = create_model("conv2former_mini_cifar", weights="cifar10")
untrained = create_model("conv2former_mini_cifar")
swin = create_model("swin_micro_cifar")
"""
EXPLORERS = {
    "ModulationExplorer": "ModulationExplorer(trained, images, names, untrained=untrained, swin=swin, upload=True)",
    "ReceptiveFieldExplorer": "ReceptiveFieldExplorer({'trained': trained, 'untrained': untrained}, images)",
    "AugmentationExplorer": "AugmentationExplorer(images, names)",
    "KernelSizeExplorer": "KernelSizeExplorer(images, names)",
    "TrainingReplay": "TrainingReplay(Recording.load(folder / 'conv2former_mini_cifar.safetensors'), "
    "Recording.load(folder / 'swin_micro_cifar.safetensors'))",
}
RECORDINGS = """
from c2f.files import data_folder
from c2f.maps.recording import Recording
folder = data_folder() / "results" / "replay"
"""


@pytest.fixture
def explorers(checkout: Path) -> Path:
    """A notebook with one explorer a cell."""
    cells = [new_markdown_cell("# The explorers"), new_code_cell(PHOTOGRAPHS), new_code_cell(RECORDINGS)]
    cells += [new_code_cell(f"from c2f_course.widgets import {name}\n{code}") for name, code in EXPLORERS.items()]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    path = checkout / "notebooks" / "explorers.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def state(cell: "sync_api.Locator") -> str:
    """The sentence and the picture: some controls, such as one for colours, change the picture alone."""
    return cell.locator(".c2f-sentence").inner_text() + cell.locator(".c2f-picture").inner_html()


def wait_for_change(page: "sync_api.Page", cell: "sync_api.Locator", before: str, seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if state(cell) != before:
            return True
        page.wait_for_timeout(50)
    return False


def turn_every_control(page: "sync_api.Page", cell: "sync_api.Locator") -> dict[str, bool]:
    """Move each slider, list and set of buttons from end to end by keys; whether picture or sentence ever changed."""
    changed = {}
    for slider in cell.locator(".widget-slider:visible").all():
        label = slider.locator(".widget-label").inner_text()
        handle = slider.locator(".noUi-handle")
        low, high = (handle.get_attribute(f"aria-value{end}") for end in ("min", "max"))
        before, changed[label] = state(cell), float(low) == float(high)
        for key in ("Home", "ArrowRight", "ArrowRight", "End"):
            handle.focus()
            page.keyboard.press(key)
            changed[label] |= wait_for_change(page, cell, before, seconds=2)
    for group in cell.locator(".widget-toggle-buttons:visible").all():
        label = group.locator(".widget-label").inner_text()
        buttons = group.locator("button")
        page.wait_for_timeout(500)  # what the last control changed may still be on its way
        changed[label] = buttons.count() == 1
        for i in range(1, buttons.count()):
            before = state(cell)
            buttons.nth(i).focus()
            page.keyboard.press("Space")
            changed[label] |= wait_for_change(page, cell, before)
    return changed


@pytest.mark.timeout(900)
def test_every_explorer_follows_the_keyboard(lab: Lab, explorers: Path, page: "sync_api.Page", tmp_path: Path) -> None:
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.set_viewport_size({"width": 1280, "height": 1400})
    open_notebook(page, lab, "notebooks/explorers.ipynb")
    run_all(page, seconds=300)
    for name in EXPLORERS:
        cell = page.locator(".jp-CodeCell", has_text=f"import {name}")
        cell.scroll_into_view_if_needed()
        cell.locator(".c2f-picture svg, .c2f-picture img").first.wait_for()
        # Lab takes the arrow keys from these two, and letters for its own commands.
        assert cell.locator("select, input[type=radio]").count() == 0, name
        unmoved = [label for label, moved in turn_every_control(page, cell).items() if not moved]
        cell.screenshot(path=tmp_path / f"{name}.png")
        print(f"screenshot: {tmp_path}/{name}.png")
        assert unmoved == [], f"{name}: nothing followed {unmoved}"
        assert cell.locator(".jp-OutputArea [data-mime-type*=stderr]").count() == 0
    assert complaints == []


@pytest.mark.timeout(600)
def test_an_image_of_ones_own_is_looked_into(lab: Lab, explorers: Path, page: "sync_api.Page", tmp_path: Path) -> None:
    own, broken = tmp_path / "own.png", tmp_path / "broken.png"
    Image.new("RGB", (90, 60), "orange").save(own)
    broken.write_bytes(b"no picture")
    open_notebook(page, lab, "notebooks/explorers.ipynb")
    run_all(page, seconds=300)
    cell = page.locator(".jp-CodeCell", has_text="import ModulationExplorer")
    cell.scroll_into_view_if_needed()
    message, button = cell.get_by_role("status"), cell.get_by_role("button", name="your own image")
    for file, told in ((own, "own.png is here, at 32×32"), (broken, "cannot be read as an image"), (own, "is here")):
        with page.expect_file_chooser() as chooser:
            button.focus()
            page.keyboard.press("Enter")
        chooser.value.set_files(file)
        sync_api.expect(message).to_contain_text(told)
    assert cell.get_by_role("button", name="own.png").count() == 2  # the same file may come again
    assert "own.png" in state(cell)
