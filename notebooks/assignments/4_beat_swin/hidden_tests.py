"""The hidden tests of 4_beat_swin. Made from source.ipynb by `make assignments`: edit that one."""


from c2f_course.grading import contest
from c2f_course.grading.assignment import Partly, hidden
from c2f_course.grading.sandbox import Limits
from c2f_course.tasks import assignment_4 as checks

LIMITS = Limits(seconds=240, answer_seconds=30)
SEED = 3099432551351891602  # of the hidden split; a new one needs new figures: python docs/measure_contest.py


@hidden(checks.net, points=1, title="images in, logits out, within the budget")
def net_within_the_budget(Net):
    checks.net.check(Net, parts=("budget",), sizes=(7, 1), seed=411)


@hidden(checks.net, points=1, title="a gradient for every parameter")
def net_learns_everywhere(Net):
    checks.net.check(Net, parts=("gradient",), seed=412)


@hidden(checks.net, points=1, title="a large kernel that counts")
def net_has_a_large_kernel(Net):
    checks.net.check(Net, parts=("kernel",), seed=413)


@hidden(checks.net, points=1, title="each image by itself")
def net_takes_each_image_by_itself(Net):
    checks.net.check(Net, parts=("alone",), seed=414)


@hidden(checks.learner, points=1, title="the seed, and nothing else, decides how it begins")
def learner_begins_at_its_seed(Learner):
    checks.learner.check(Learner, parts=("seed",), seed=421)


@hidden(checks.learner, points=1, title="this batch alone, whatever its size, and left as it is")
def learner_takes_this_batch_alone(Learner):
    checks.learner.check(Learner, parts=("batch",), small=6, seed=422)


@hidden(checks.learner, points=2, title="labels by chance are learned by heart")
def learner_learns(Learner):
    checks.learner.check(Learner, parts=("learns",), seed=423)


@hidden(checks.learner, points=1, title="the rate follows progress")
def learner_follows_progress(Learner):
    checks.learner.check(Learner, parts=("rate",), seed=424)


@hidden(checks.entry, points=2, title="another entry with these weights answers alike")
def entry_hands_everything_on(Entry):
    checks.entry.check(Entry, parts=("carries",), seed=431, steps=6)


@hidden(checks.entry, points=2, title="an image's answer is its own")
def entry_answers_for_one_image(Entry):
    checks.entry.check(Entry, parts=("alone",), seed=432)


@hidden(checks.entry, points=1, title="predict changes nothing, and learning goes on after it")
def entry_goes_on(Entry):
    checks.entry.check(Entry, parts=("goes on",), seed=433, steps=2)


@hidden(checks.contest, points=6, title="the accuracy on images that nobody has", whole=True)
def the_contest(student):
    learning, name = student.answers(checks.contest)
    judged, swin_t = contest.hidden_split(SEED), contest.opponents()["swin_t"]["accuracy"]
    contest.expect_ignorance(learning, learning, judged)
    with student.fresh() as other:
        answering, _ = other.answers(checks.contest)
        outcome = contest.compete(learning, answering, judged)
    share = contest.share_of_points(outcome.accuracy, swin_t)
    message = f"{outcome}. Swin-T reaches {swin_t:.1%}; all points are earned at {swin_t + contest.MARGIN:.1%}."
    measured = {
        "accuracy": round(outcome.accuracy, 4),
        "parameters": outcome.numbers,
        "seconds": round(outcome.seconds, 1),
        "name": contest.name_for_the_board(name),
    }
    return Partly(share, message, measured)
