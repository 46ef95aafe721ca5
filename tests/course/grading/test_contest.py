"""The contest of assignment 4: its images, its budgets, what it refuses, and right answers written in other ways."""

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from c2f.models import ConvMod
from c2f.training.sources.dataset import Split
from c2f_course.grading import contest
from c2f_course.grading.assignment import load_assignment
from c2f_course.tasks import assignment_4 as checks
from c2f_course.tasks.exercise import Blank, Hint

ROOT = Path(__file__).parents[3]
SEED = 12345  # of a hidden split that is nobody's


@pytest.fixture(scope="module")
def hidden() -> Split:
    return contest.hidden_split(SEED)


# ---- The images


def test_a_drawing_is_a_pure_function_of_its_seed() -> None:
    ink, _ = contest._digits()
    state = torch.get_rng_state()
    first, again, other = (contest.draw(ink[:50], seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.dtype == torch.uint8 and first.shape == (50, 3, 32, 32)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_splits_share_no_digit(hidden: Split) -> None:
    practice = contest.practice_split()
    counts = [len(split) for split in (practice.train, practice.validation, hidden)]
    assert counts == [6000, 1000, 1985]
    ink, labels = contest._digits()
    assert len(ink) == 1797 and len(ink.flatten(1).unique(dim=0)) == 1797  # so no digit is there twice
    assert torch.equal(hidden.labels[:397], labels[1400:])
    for split in (practice.train, practice.validation, hidden):
        shares = split.labels.bincount(minlength=10) / len(split)
        assert shares.min() > 0.05 and shares.max() < 0.15


def test_another_seed_draws_other_images_of_the_same_digits(hidden: Split) -> None:
    other = contest.hidden_split(SEED + 1)
    assert torch.equal(hidden.labels, other.labels)
    assert not (hidden.images == other.images).flatten(1).all(1).any()


# ---- The budget


class Watching:
    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor, float]] = []

    def step(self, images: Tensor, labels: Tensor, progress: float) -> None:
        self.seen.append((images, labels, progress))


def numbered(count: int) -> Split:
    """Images that are told apart by their first two pixels."""
    images = torch.zeros(count, 3, 32, 32, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = torch.arange(count) // 256, torch.arange(count) % 256
    return Split(images, torch.arange(count) % 10)


def test_exactly_the_budget_is_fed_in_shuffled_passes() -> None:
    watching, split = Watching(), numbered(300)
    contest.feed(watching, split, 700, seed=1)
    assert [len(labels) for _, labels, _ in watching.seen] == [64] * 10 + [60]
    progress = [p for _, _, p in watching.seen]
    assert progress[0] == 0 and progress == sorted(progress) and progress[-1] == 640 / 700
    images = torch.cat([x for x, _, _ in watching.seen]).int()
    number = images[:, 0, 0, 0] * 256 + images[:, 0, 0, 1]
    assert torch.equal(torch.cat([y for _, y, _ in watching.seen]), (number % 10).long())
    assert sorted(number[:300].tolist()) == sorted(number[300:600].tolist()) == list(range(300))
    assert number[:300].tolist() != number[300:600].tolist()
    other = Watching()
    contest.feed(other, split, 700, seed=2)
    assert not torch.equal(other.seen[0][0], watching.seen[0][0])


def test_all_that_is_handed_on_counts() -> None:
    weights = {"w": torch.zeros(3, 4), "mean": torch.zeros(5), "steps": torch.tensor(3), "half": torch.zeros(2).half()}
    assert contest.within_budget(weights) == 12 + 5 + 2 + 2  # an int64 is two numbers of 32 bits
    assert contest.within_budget({"w": torch.zeros(contest.NUMBERS)}) == contest.NUMBERS
    with pytest.raises(contest.Refused, match=r"300,001 numbers, and the budget allows 300,000"):
        contest.within_budget({"w": torch.zeros(contest.NUMBERS + 1)})
    with pytest.raises(contest.Refused, match="the budget allows"):
        contest.within_budget({"w": torch.zeros(contest.NUMBERS // 2 + 1).double()})


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [({}, "not empty"), ([torch.zeros(1)], "a dictionary"), ({"w": 1.0}, "a float"),
     ({"w" * 201: torch.zeros(1)}, "200 letters")],
)  # fmt: skip
def test_what_is_no_weights_is_refused(weights: Any, sentence: str) -> None:
    with pytest.raises(contest.Refused, match=sentence):
        contest.within_budget(weights)


def test_a_gap_is_blank() -> None:
    with pytest.raises(Blank):
        contest.within_budget(None)
    with pytest.raises(Blank):
        contest.ask(SimpleNamespace(predict=lambda images: None), numbered(3).images)


@pytest.mark.parametrize(
    ("predict", "sentence"),
    [(lambda x: torch.zeros(len(x)), r"shape \(3, 10\), and gave of shape \(3,\)"),
     (lambda x: torch.full((len(x), 10), math.nan), "not finite"), (lambda x: [0] * len(x), "a list")],
)  # fmt: skip
def test_what_is_no_scores_is_refused(predict: Any, sentence: str) -> None:
    with pytest.raises(contest.Refused, match=sentence):
        contest.ask(SimpleNamespace(predict=predict), numbered(3).images)


@pytest.mark.parametrize("depends", [False, True])
def test_answers_that_depend_on_other_images_are_refused(depends: bool) -> None:
    def predict(images: Tensor) -> Tensor:
        scores = images.float().flatten(1)[:, :10] + torch.arange(10.0)
        return scores - scores.mean(0) if depends else scores

    entry, images = SimpleNamespace(predict=predict), numbered(100).images
    scores = contest.ask(entry, images)
    if not depends:
        return contest.expect_alone(entry, images, scores)
    with pytest.raises(contest.Refused, match="asked alone"):
        contest.expect_alone(entry, images, scores)


# ---- Entries


class Plain:
    """A right entry, small: one convolution over a contrast, and a linear layer."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 7 * 7, 10))
        self.optimizer = torch.optim.SGD(self.net.parameters(), 0.01, momentum=0.9)

    def step(self, images: Tensor, labels: Tensor, progress: float) -> None:
        self.optimizer.zero_grad()
        F.cross_entropy(self.net(images / 255), labels).backward()
        self.optimizer.step()

    def weights(self) -> dict[str, Tensor]:
        return self.net.state_dict()

    def load(self, weights: dict[str, Tensor]) -> None:
        self.net.load_state_dict(weights)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        return self.net(images / 255)


def test_a_rehearsal_is_the_contest_on_the_validation_split(monkeypatch: pytest.MonkeyPatch) -> None:
    first, again = (contest.rehearse(Plain, 320, show=False) for _ in range(2))
    assert (first.accuracy, first.numbers) == (again.accuracy, again.numbers)
    assert first.images_seen == 320 and first.numbers == 8 * 75 + 8 + 3920 + 10
    assert "320 images seen" in str(first)
    main = SimpleNamespace(__spec__=SimpleNamespace(name="c2f_course.grading.worker"))
    monkeypatch.setitem(contest.sys.modules, "__main__", main)
    assert math.isnan(contest.rehearse(Plain).accuracy)


def test_the_answers_come_from_the_weights_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an entry keeps elsewhere is not there in the second class, which stands for a second process."""

    class Forgetful(Plain):
        def load(self, weights: dict[str, Tensor]) -> None:
            pass

    labels = torch.arange(640) % 10
    bands = torch.arange(32)[None, :] // 3 == labels[:, None]  # the class is where the bright band lies
    easy = Split((200 * bands[:, None, :, None].expand(-1, 3, 32, 32)).to(torch.uint8), labels)
    monkeypatch.setattr(contest, "practice_split", lambda: contest.Practice(easy, easy))
    known = contest.compete(Plain, Plain, easy, 3200)
    forgotten = contest.compete(Plain, Forgetful, easy, 3200)
    assert known.accuracy == 1
    assert forgotten.accuracy <= 0.5


def counting(labels: Tensor, seed: int) -> type:
    """An entry that looks at no image: it counts them, and knows the labels in the order that the seed gives."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))

    class Counting(Plain):
        def load(self, weights: dict[str, Tensor]) -> None:
            self.left, self.kept = list(labels[order]), {}

        def predict(self, images: Tensor) -> Tensor:
            names = [image.numpy().tobytes() for image in images]
            for name in names:
                if name not in self.kept:
                    self.kept[name] = self.left.pop(0)
            return F.one_hot(torch.stack([self.kept[name] for name in names]), 10).double()

    return Counting


def test_whoever_counts_the_images_knows_nothing() -> None:
    judged = numbered(200)
    entry = counting(judged.labels, seed=0)
    assert contest.compete(Plain, entry, judged, 64).accuracy < 0.5


def test_images_that_an_entry_writes_into_are_the_next_ones_images_no_more() -> None:
    class Writing(Plain):
        def predict(self, images: Tensor) -> Tensor:
            images.zero_()
            return super().predict(images)

    images = numbered(30).images
    before = images.clone()
    with pytest.raises(Hint, match="changed the images itself"):
        contest.ask(Writing(0), images)
    assert torch.equal(images, before)


def test_an_honest_entry_is_ignorant(hidden: Split) -> None:
    contest.expect_ignorance(Plain, Plain, hidden)


def test_an_entry_that_knows_what_nobody_told_it_is_refused(hidden: Split) -> None:
    class Knowing(Plain):
        def predict(self, images: Tensor) -> Tensor:
            near = (
                (images[:, None, :, ::8, ::8].int() - hidden.images[None, :, :, ::8, ::8].int())
                .abs()
                .flatten(2)
                .sum(-1)
            )
            return F.one_hot(hidden.labels[near.argmin(1)], 10).double()

    with pytest.raises(contest.Refused, match="after 3 batches with wrong labels it knows 100%"):
        contest.expect_ignorance(Knowing, Knowing, hidden)


def test_an_entry_that_begins_with_the_same_weights_at_every_seed_is_refused(hidden: Split) -> None:
    class Trained(Plain):
        def __init__(self, seed: int) -> None:
            super().__init__(0)

    with pytest.raises(contest.Refused, match="entries of two different seeds"):
        contest.expect_ignorance(Trained, Trained, hidden)
    table = torch.arange(9.0)  # such as an encoding of positions: a tenth may be the same
    contest.expect_drawn(
        {"w": torch.rand(90), "p": table, "b": torch.ones(50)}, {"w": torch.rand(90), "p": table, "b": torch.ones(50)}
    )


# ---- Points, names, figures


def test_points_are_a_straight_line() -> None:
    share = contest.share_of_points
    assert share(0.1, 0.7) == share(0.2, 0.7) == 0
    assert share(0.75, 0.7) == share(0.99, 0.7) == 1
    assert share(0.475, 0.7) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("  Ada\n L. ", "Ada L."), ("x" * 40, "x" * 40), ("x" * 41, "no name"), ("", "no name"), (7, "no name"),
     ("a\x1b[31m", "a [31m"), (None, "no name")],
)  # fmt: skip
def test_a_name_for_the_board(name: Any, shown: str) -> None:
    assert contest.name_for_the_board(name) == shown


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure_contest", ROOT / "docs" / "measure_contest.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_the_stored_figures_belong_to_this_contest(script: ModuleType) -> None:
    told = json.loads(contest.results_path().read_text(encoding="utf-8"))
    hidden_tests = load_assignment("4").tests[0].run.__globals__
    assert told["budget"] == {
        "images_seen": contest.IMAGES_SEEN,
        "batch": contest.BATCH,
        "hidden_seed_sha256": script.name_of_seed(hidden_tests["SEED"]),
    }
    assert str(hidden_tests["SEED"]) not in contest.results_path().read_text(encoding="utf-8")
    for name in ("swin_t", "swin_micro_cifar"):
        tried = told["opponents"][name]["tried"]
        assert len(tried) >= 3
        assert told["opponents"][name]["accuracy"] == max(tried, key=lambda run: run["validation"])["hidden"]
    author = told["opponents"]["the author's entry"]
    assert contest.share_of_points(author["accuracy"] - 0.03, told["opponents"]["swin_t"]["accuracy"]) == 1
    assert author["parameters"] <= contest.NUMBERS


def test_an_opponent_is_measured_and_kept(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("C2F_DATA", str(tmp_path))
    assert contest.opponents() == {}
    few = numbered(20)
    monkeypatch.setattr(contest, "IMAGES_SEEN", 20)
    monkeypatch.setattr(contest, "practice_split", lambda: contest.Practice(few, few))
    monkeypatch.setattr(contest, "hidden_split", lambda seed: few)
    said: list[str] = []
    script.measure("swin_micro_cifar", [1e-3], SEED, said.append)
    script.measure("swin_micro_cifar", [1e-4], SEED, said.append)
    (kept,) = contest.opponents().values()
    assert [run["lr"] for run in kept["tried"]] == [1e-4, 1e-3]
    assert len(said) == 2 and kept["parameters"] == 1_556_902
    script.measure("swin_micro_cifar", [1e-3], SEED + 1, said.append)  # another split: the old figures go
    assert len(contest.opponents()["swin_micro_cifar"]["tried"]) == 1


# ---- Right answers, written in other ways


class GreyNet(nn.Module):
    """Grey contrast, a patch stem, ConvMod blocks with 11×11 kernels and a layer scale that begins at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 48, 4, 4)
        self.mods = nn.ModuleList([ConvMod(48, 11) for _ in range(2)])
        self.scales = nn.ParameterList([torch.zeros(48, 1, 1) for _ in range(2)])
        self.head = nn.Linear(48 * 64, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = images.double().mean(1, keepdim=True).float()
        x = (x - x.amin((2, 3), keepdim=True)) / (x.amax((2, 3), keepdim=True) - x.amin((2, 3), keepdim=True) + 1)
        x = self.stem(x)
        for mod, scale in zip(self.mods, self.scales, strict=True):
            x = x + scale * mod(x)
        return self.head(x.reshape(len(x), -1))


class SlicedNet(nn.Module):
    """A depthwise convolution by shifts and sums, as in assignment 1; group norm; dropout; maxima over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, 32, 3, 2, 1), nn.GroupNorm(4, 32), nn.ReLU())
        self.kernel = nn.Parameter(torch.randn(32, 7, 7) / 7)
        self.mix = nn.Conv2d(32, 64, 1, bias=False)
        self.drop, self.out = nn.Dropout(0.1), nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images.to(torch.float32) / 127.5 - 1)
        padded = F.pad(x, (3, 3, 3, 3))
        y = sum(
            self.kernel[:, i, j, None, None] * padded[:, :, i : i + 8, j : j + 8] for i in range(7) for j in range(7)
        )
        return self.out(self.drop(F.relu(self.mix(x + y)).amax((2, 3))))


class BatchNet(nn.Sequential):
    """Nothing but library layers in a row, with batch norms."""

    def __init__(self) -> None:
        def block(side: int) -> list[nn.Module]:
            return [
                nn.Conv2d(40, 40, side, padding=side // 2, groups=40),
                nn.BatchNorm2d(40),
                nn.Conv2d(40, 40, 1),
                nn.SiLU(),
            ]

        super().__init__(
            nn.Conv2d(3, 40, 4, 4), nn.BatchNorm2d(40), *block(9), *block(5),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 10),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(torch.div(images, 255))


def momentum(net: type[nn.Module]) -> type:
    """SGD with momentum, linear decay, gradients cleared after the step."""

    class Learner:
        def __init__(self, seed: int) -> None:
            torch.manual_seed(seed)
            self.net = net()
            self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9, nesterov=True)

        def step(self, images: Tensor, labels: Tensor, progress: float) -> float:
            self.net.train()
            self.optimizer.param_groups[0]["lr"] = 0.1 * (1 - progress)
            loss = F.cross_entropy(self.net(images), labels)
            loss.backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            return loss.item()

    return Learner


def averaged(net: type[nn.Module]) -> type:
    """One-cycle AdamW with shifts and soft labels, and averaged weights beside it, which are what answers."""

    class Learner:
        def __init__(self, seed: int) -> None:
            torch.manual_seed(seed)
            self.net, self.slow = net(), net()
            self.slow.load_state_dict(self.net.state_dict())
            self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-3, betas=(0.9, 0.98))

        def step(self, images: Tensor, labels: Tensor, progress: float) -> None:
            rate = 5e-3 * (progress + 0.02) / 0.3 if progress < 0.28 else 5e-3 * (1 - progress) / 0.7
            self.optimizer.param_groups[0]["lr"] = rate
            self.net.train()
            down, right = torch.randint(-1, 2, (2,)).tolist()
            target = 0.95 * F.one_hot(labels, 10) + 0.005
            loss = -(target * self.net(images.roll((down, right), (2, 3))).log_softmax(1)).sum(1).mean()
            for parameter, gradient in zip(
                self.net.parameters(), torch.autograd.grad(loss, list(self.net.parameters())), strict=True
            ):
                parameter.grad = gradient
            self.optimizer.step()
            for slow, fast in zip(self.slow.state_dict().values(), self.net.state_dict().values(), strict=True):
                slow.lerp_(fast, 0.3) if slow.is_floating_point() else slow.copy_(fast)

        def weights(self) -> dict[str, Tensor]:
            return {f"slow.{name}": value for name, value in self.slow.state_dict().items()}

        def load(self, weights: dict[str, Tensor]) -> None:
            self.slow.load_state_dict({name.removeprefix("slow."): value for name, value in weights.items()})

        @torch.inference_mode()
        def predict(self, images: Tensor) -> Tensor:
            self.slow.eval()
            return sum(self.slow(images.roll(shift, 3)).softmax(1) for shift in (-1, 0, 1))

    return Learner


def handed_on(learner: type) -> type:
    """Half-precision weights under numbers for names; log-probabilities in float64 for scores."""

    class Entry(learner):
        def weights(self) -> dict[str, Tensor]:
            return {str(number): value for number, value in enumerate(self.net.state_dict().values())}

        def load(self, weights: dict[str, Tensor]) -> None:
            with torch.no_grad():
                for number, value in enumerate(self.net.state_dict().values()):
                    value.copy_(weights[str(number)])

        def predict(self, images: Tensor) -> Tensor:
            self.net.eval()
            return self.net(images).double().log_softmax(-1)

    return Entry


@pytest.mark.parametrize("net", [GreyNet, SlicedNet, BatchNet])
def test_other_right_networks_pass(net: type[nn.Module]) -> None:
    verdict = checks.net(net)
    assert verdict.passed, verdict


@pytest.mark.parametrize(
    ("net", "learner", "seed"),
    [(GreyNet, momentum, 42), (SlicedNet, averaged, 421), (BatchNet, momentum, 421), (BatchNet, averaged, 42)],
)
def test_other_right_learners_pass(net: type[nn.Module], learner: Any, seed: int) -> None:
    assert checks.learner.check(learner(net), seed=seed)


@pytest.mark.parametrize(
    "entry", [averaged(BatchNet), averaged(GreyNet), handed_on(momentum(SlicedNet)), handed_on(momentum(BatchNet))]
)
def test_other_right_entries_pass(entry: type) -> None:
    for seed in (43, 431):
        assert checks.entry.check(entry, seed=seed)
    verdict = checks.contest(entry, "Ada")
    assert verdict.passed, verdict


def test_a_name_that_will_not_do_has_its_hint() -> None:
    verdict = checks.contest(averaged(BatchNet), "x" * 50)
    assert not verdict.passed and "1 to 40 letters" in verdict.message
