"""The hidden tests of 1_convmod_from_scratch. Made from source.ipynb by `make assignments`: edit that one."""


from c2f_course.grading.assignment import hidden
from c2f_course.tasks import assignment_1 as checks


@hidden(checks.layer_norm, points=1, title="a larger map, more channels than columns")
def layer_norm_of_another_shape(layer_norm):
    checks.layer_norm.check(layer_norm, shape=(3, 10, 5, 7), seed=101)


@hidden(checks.layer_norm, points=1, title="one channel, one row, one image")
def layer_norm_of_small_maps(layer_norm):
    checks.layer_norm.check(layer_norm, shape=(1, 1, 1, 4), seed=102)
    checks.layer_norm.check(layer_norm, shape=(1, 5, 1, 1), seed=103)
    checks.layer_norm.check(layer_norm, shape=(2, 4, 6, 4), seed=106)


@hidden(checks.layer_norm, points=1, title="numbers far from zero")
def layer_norm_far_from_zero(layer_norm):
    checks.layer_norm.check(layer_norm, shape=(2, 8, 3, 9), seed=104, level=100.0)


@hidden(checks.depthwise, points=2, title="11×11 kernels on a map that is smaller than they are")
def depthwise_with_large_kernels(depthwise):
    checks.depthwise.check(depthwise, shape=(2, 4, 7, 9), kernel=(11, 11), seed=111)


@hidden(checks.depthwise, points=2, title="kernels that are not square")
def depthwise_with_oblong_kernels(depthwise):
    checks.depthwise.check(depthwise, shape=(1, 3, 6, 6), kernel=(3, 7), seed=112)
    checks.depthwise.check(depthwise, shape=(1, 3, 6, 6), kernel=(5, 1), seed=113)


@hidden(checks.depthwise, points=2, title="1×1 kernels, one channel, a map of two pixels")
def depthwise_at_the_edges(depthwise):
    checks.depthwise.check(depthwise, shape=(3, 1, 5, 4), kernel=(1, 1), seed=114)
    checks.depthwise.check(depthwise, shape=(2, 5, 2, 1), kernel=(3, 3), seed=115)


@hidden(checks.convmod, points=2, title="11×11 kernels")
def convmod_with_large_kernels(ConvMod):
    checks.convmod.check(ConvMod, dim=8, kernel_size=11, size=(8, 8), seed=121)


@hidden(checks.convmod, points=2, title="another kernel size, an oblong map")
def convmod_with_small_kernels(ConvMod):
    checks.convmod.check(ConvMod, dim=5, kernel_size=3, size=(4, 11), seed=123)


@hidden(checks.convmod, points=1, title="large weights, where a GELU and its neighbours differ most")
def convmod_with_large_weights(ConvMod):
    checks.convmod.check(ConvMod, dim=4, kernel_size=7, size=(6, 6), seed=125, scale=2.0)


@hidden(checks.block, points=2, title="11×11 kernels, four times as many hidden channels")
def block_as_in_the_paper(Block):
    checks.block.check(Block, dim=6, kernel_size=11, ratio=4.0, size=(7, 7), seed=131)


@hidden(checks.block, points=2, title="a ratio that is no whole number, a map of one row")
def block_with_an_odd_ratio(Block):
    checks.block.check(Block, dim=5, kernel_size=7, ratio=1.5, size=(1, 9), seed=133)


@hidden(checks.parameters, points=1, title="the dims of the seed model")
def parameters_of_the_seed_model(block_parameters, share_of_depthwise):
    cases = tuple((dim, 11, 2.0) for dim in (64, 128, 256, 512))
    checks.parameters.check(block_parameters, share_of_depthwise, cases)


@hidden(checks.parameters, points=1, title="odd numbers of channels, odd ratios")
def parameters_of_odd_blocks(block_parameters, share_of_depthwise):
    checks.parameters.check(block_parameters, share_of_depthwise, ((7, 3, 1.5), (33, 13, 2.7), (1, 1, 1.0)))
