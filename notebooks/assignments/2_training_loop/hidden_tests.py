"""The hidden tests of 2_training_loop. Made from source.ipynb by `make assignments`: edit that one."""


from c2f_course.grading.assignment import hidden
from c2f_course.tasks import assignment_2 as checks


@hidden(checks.training_loss, points=1, title="labels, of other numbers of images and classes")
def loss_of_labels(training_loss):
    for images, classes, seed in ((9, 5, 201), (4, 4, 202), (1, 6, 203), (3, 12, 204)):
        checks.training_loss.check(
            training_loss, images, classes, (0.1, 0.3, 0.0), sizes=(3.0,), kinds=("labels",), seed=seed
        )


@hidden(checks.training_loss, points=1, title="shares, of other numbers of images and classes")
def loss_of_shares(training_loss):
    for images, classes, seed in ((9, 5, 205), (4, 4, 206), (1, 6, 207), (3, 12, 208)):
        checks.training_loss.check(
            training_loss, images, classes, (0.1, 0.3, 0.0), sizes=(3.0,), kinds=("shares",), seed=seed
        )


@hidden(checks.training_loss, points=1, title="logits of hundreds and thousands")
def loss_of_large_logits(training_loss):
    for size in (300.0, 2000.0):
        checks.training_loss.check(training_loss, 7, 5, (0.2, 0.0), sizes=(size,), seed=209)


@hidden(checks.drop_path, points=1, title="maps, in training")
def drop_path_of_maps(drop_path):
    checks.drop_path.check(drop_path, ((8, 3, 5, 8), (12, 2, 3, 4), (2, 1, 1, 1)), (0.125, 0.75), (True,), 211)


@hidden(checks.drop_path, points=1, title="tokens, vectors, clips: other numbers of axes, in training")
def drop_path_of_other_shapes(drop_path):
    checks.drop_path.check(drop_path, ((7, 4, 6), (9, 9), (4, 2, 3, 2, 3), (10,)), (0.25, 0.75), (True,), 213)


@hidden(checks.drop_path, points=1, title="evaluation, and the ends of p")
def drop_path_at_the_ends(drop_path):
    checks.drop_path.check(drop_path, ((6, 2, 3, 3),), (0.75, 0.0, 1.0), (True, False), 214)


@hidden(checks.mixup, points=1, title="the images: bytes, oblong, as many as they have columns")
def mixup_of_images(mixup):
    checks.mixup.check(mixup, (8, 3, 4, 8), 10, True, parts=("images",), seed=221)
    checks.mixup.check(mixup, (3, 3, 6, 2), 5, True, parts=("images",), seed=222)


@hidden(checks.mixup, points=1, title="the targets: as many images as classes, and more classes than labels")
def mixup_of_targets(mixup):
    checks.mixup.check(mixup, (6, 3, 4, 4), 6, True, parts=("targets",), seed=223)
    checks.mixup.check(mixup, (4, 1, 2, 3), 12, True, parts=("targets",), seed=224)


@hidden(checks.mixup, points=1, title="floating images, shares of 0 and 1, a single image")
def mixup_of_floats(mixup):
    checks.mixup.check(mixup, (7, 3, 5, 6), 9, False, seed=225)
    checks.mixup.check(mixup, (4, 2, 3, 3), 5, False, shares=(1.0, 1.0, 0.0, 0.75), seed=226)
    checks.mixup.check(mixup, (1, 3, 4, 4), 3, False, seed=227)


@hidden(checks.rate_at, points=1, title="other trainings, up to their last step")
def rates_of_other_trainings(rate_at):
    checks.rate_at.check(rate_at, 5, 9, 3, 0.4, 0.01, after=False)
    checks.rate_at.check(rate_at, 45, 3, 1, 5e-3, 1e-5, after=False)


@hidden(checks.rate_at, points=1, title="without warm-up, and without a floor")
def rates_without_warmup(rate_at):
    checks.rate_at.check(rate_at, 4, 5, 0, 1e-3, 1e-4, after=False)
    checks.rate_at.check(rate_at, 10, 4, 0, 2.0, 0.0, after=False)


@hidden(checks.rate_at, points=1, title="a whole training, and what comes after it")
def rates_after_the_end(rate_at):
    checks.rate_at.check(rate_at, 8, 4, 1, 0.03, 0.002, after=True)
    checks.rate_at.check(rate_at, 3, 6, 2, 0.1, 0.0, after=True)


@hidden(checks.train_epoch, points=1, title="the weights: AdamW, one group, no clipping")
def epoch_with_adamw(train_epoch):
    checks.train_epoch.check(train_epoch, (8, 8, 8, 8, 5), 0, None, "adamw", 1, parts=("weights",), seed=241)


@hidden(checks.train_epoch, points=1, title="the weights: two groups, clipping, from the middle of a training")
def epoch_with_clipping(train_epoch):
    checks.train_epoch.check(train_epoch, (5, 5, 5, 4), 17, 0.4, "sgd", 2, parts=("weights",), seed=242)
    checks.train_epoch.check(train_epoch, (7, 7, 2), 3, 0.2, "sgd", 1, parts=("weights",), seed=243)


@hidden(checks.train_epoch, points=1, title="the weights: batches that can be gone through once")
def epoch_of_an_iterator(train_epoch):
    checks.train_epoch.check(train_epoch, (6, 6, 6, 6, 2), 9, None, "sgd", 2, True, ("weights",), seed=244)


@hidden(checks.train_epoch, points=1, title="the mean loss and the next step")
def report_of_an_epoch(train_epoch):
    checks.train_epoch.check(train_epoch, (9, 9, 2), 6, None, "sgd", 1, parts=("report",), seed=245)
    checks.train_epoch.check(train_epoch, (4, 4, 4, 4, 3), 0, 0.3, "sgd", 2, parts=("report",), seed=246)


@hidden(checks.resume, points=1, title="file: weights, optimizer, step, where nothing is random")
def resume_without_random_numbers(snapshot, restore):
    checks.resume.check(snapshot, restore, "sgd", False, 9, 16, ("file",), 251)
    checks.resume.check(snapshot, restore, "adamw", False, 4, 12, ("file",), 252)


@hidden(checks.resume, points=1, title="file: read by a new process, with dropout, BatchNorm and AdamW", whole=True)
def resume_in_a_new_process(student):
    snapshot, restore = student.answers(checks.resume)
    checks.resume.check(snapshot, restore, "adamw", True, 11, 17, ("file",), 253)  # else no process is needed
    with student.fresh() as other:
        _, restore = other.answers(checks.resume)
        for optimizer, stop in (("adamw", 10), ("sgd", 5)):
            plan = {"optimizer": optimizer, "draws": True, "stop": stop, "total": 17, "seed": 258}
            checks.expect_resumed(snapshot, restore, plan)


@hidden(checks.resume, points=1, title="kept: the training goes on, then back to the snapshot")
def resume_what_was_kept(snapshot, restore):
    checks.resume.check(snapshot, restore, "adamw", True, 6, 14, ("kept",), 254)
    checks.resume.check(snapshot, restore, "sgd", True, 1, 9, ("kept",), 255)


@hidden(checks.resume, points=1, title="twice: two trainings from one snapshot")
def resume_twice(snapshot, restore):
    checks.resume.check(snapshot, restore, "adamw", True, 8, 12, ("twice",), 256)
    checks.resume.check(snapshot, restore, "sgd", True, 3, 11, ("twice",), 257)
