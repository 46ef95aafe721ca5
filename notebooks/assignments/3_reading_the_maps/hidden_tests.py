"""The hidden tests of 3_reading_the_maps. Made from source.ipynb by `make assignments`: edit that one."""


from c2f_course.grading.assignment import hidden
from c2f_course.tasks import assignment_3 as checks


@hidden(checks.window_maps, points=1, title="the terms, at all four corners")
def terms_at_the_corners(window_maps, modulation_at):
    corners = ((0, 0), (0, 9), (6, 0), (6, 9))
    cases = tuple(((2, 3, 7, 10), 5, corner, 310 + n) for n, corner in enumerate(corners))
    checks.window_maps.check(window_maps, modulation_at, cases, part="terms")


@hidden(checks.window_maps, points=1, title="the terms, with kernels larger than the map, and of a single tap")
def terms_of_other_kernels(window_maps, modulation_at):
    cases = (((1, 4, 4, 6), 11, (1, 4), 314), ((3, 1, 2, 5), 1, (1, 0), 315), ((2, 5, 9, 9), 7, (4, 6), 316))
    checks.window_maps.check(window_maps, modulation_at, cases, part="terms")


@hidden(checks.window_maps, points=1, title="A at other positions")
def sums_of_terms(window_maps, modulation_at):
    cases = (((1, 4, 4, 6), 11, (3, 0), 317), ((2, 3, 6, 5), 3, (5, 2), 318), ((4, 1, 7, 7), 5, (3, 3), 319))
    checks.window_maps.check(window_maps, modulation_at, cases, part="sums")


@hidden(checks.implied_attention, points=1, title="rows at the corners of an oblong map")
def rows_at_the_corners(implied_row, implied_column):
    corners = ((0, 0), (0, 5), (7, 0), (7, 5))
    cases = tuple((((3, 8, 6), corner, 320 + n), 5) for n, corner in enumerate(corners))
    checks.implied_attention.check(implied_row, implied_column, cases, part="rows")


@hidden(checks.implied_attention, points=1, title="rows of 11×11 kernels on a small map, and of a single tap")
def rows_of_other_kernels(implied_row, implied_column):
    cases = ((((4, 4, 4), (3, 1), 324), 11), (((1, 5, 2), (2, 1), 325), 1), (((2, 12, 13), (6, 6), 326), 11))
    checks.implied_attention.check(implied_row, implied_column, cases, part="rows")


@hidden(checks.implied_attention, points=1, title="columns at the corners of an oblong map")
def columns_at_the_corners(implied_row, implied_column):
    corners = ((0, 0), (0, 8), (4, 0), (4, 8))
    cases = tuple((((3, 5, 9), corner, 330 + n), 3) for n, corner in enumerate(corners))
    checks.implied_attention.check(implied_row, implied_column, cases, part="columns")


@hidden(checks.implied_attention, points=1, title="columns of 11×11 kernels on a small and on a large map")
def columns_of_other_kernels(implied_row, implied_column):
    cases = ((((4, 4, 5), (0, 3), 334), 11), (((2, 13, 12), (6, 6), 335), 11), (((1, 9, 9), (4, 3), 336), 7))
    checks.implied_attention.check(implied_row, implied_column, cases, part="columns")


@hidden(checks.effective_field, points=1, title="the field of one image")
def field_of_one_image(effective_field, area_holding):
    checks.effective_field.check(effective_field, area_holding, ((6, 7, (1, 14, 10), False, False, 340),), ())


@hidden(checks.effective_field, points=1, title="the field of several images, with sides that are not even")
def field_of_several_images(effective_field, area_holding):
    cases = ((3, 3, (4, 11, 17), False, False, 342), (5, 11, (2, 16, 16), False, False, 344))
    checks.effective_field.check(effective_field, area_holding, cases, ())


@hidden(checks.effective_field, points=1, title="a model in training mode, and one that is not, each left as it was")
def field_of_a_model_in_training(effective_field, area_holding):
    cases = ((5, 5, (4, 12, 14), True, True, 346), (4, 3, (2, 10, 12), False, True, 351))
    checks.effective_field.check(effective_field, area_holding, cases, ())


@hidden(checks.effective_field, points=1, title="the area, of other fields and shares")
def areas_of_other_fields(effective_field, area_holding):
    areas = (((2, 1, 0, 1), 0.5), ((0, 0, 64, 0), 0.9), ((3, 1, 2, 2), 0.75), (348, 0.25), (349, 0.5), (350, 0.99))
    checks.effective_field.check(effective_field, area_holding, (), areas)


@hidden(checks.experiment, points=1, title="crops of other kernels and radii, 0 and the whole kernel among them")
def crops(crop_kernels, energy_removed, control_kernels, effect):
    cases = ((5, 11, 3, 360), (2, 7, 0, 361), (3, 5, 2, 362), (1, 9, 1, 363))
    checks.experiment.check(crop_kernels, energy_removed, control_kernels, effect, cases, (), ("crop",))


@hidden(checks.experiment, points=1, title="the energy that has gone from other kernels")
def energies(crop_kernels, energy_removed, control_kernels, effect):
    cases = ((6, 11, 3, 364), (1, 3, 1, 365))
    checks.experiment.check(crop_kernels, energy_removed, control_kernels, effect, cases, (), ("removed",))


@hidden(checks.experiment, points=1, title="controls of 11×11 kernels")
def controls(crop_kernels, energy_removed, control_kernels, effect):
    cases = ((8, 11, 3, 366), (4, 11, 1, 367))
    checks.experiment.check(crop_kernels, energy_removed, control_kernels, effect, cases, (), ("control",))


@hidden(checks.experiment, points=1, title="controls of other kernels, one of them with nothing to take away")
def other_controls(crop_kernels, energy_removed, control_kernels, effect):
    cases = ((5, 7, 2, 368), (1, 5, 1, 369), (3, 3, 1, 370))
    checks.experiment.check(crop_kernels, energy_removed, control_kernels, effect, cases, (), ("control",))


@hidden(checks.experiment, points=1, title="the effect on other answers, of one image and of many")
def effects(crop_kernels, energy_removed, control_kernels, effect):
    answers = ((40, 10, 371), (1, 2, 372), (7, 7, 373))
    checks.experiment.check(crop_kernels, energy_removed, control_kernels, effect, (), answers, ("effect",))
