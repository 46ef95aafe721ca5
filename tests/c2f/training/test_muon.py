"""Muon: steps that are orthogonal matrices, as the post that describes it says."""

import pytest
import torch
from torch import nn

from c2f.training.muon import Muon, orthogonalize


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 5), (2, 5, 16)])
def test_all_singular_values_come_near_one_and_the_directions_stay(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape, dtype=torch.double)
    u, _, vt = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonalize(matrices)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6 and values.max() < 1.3
    diagonal = u.mT @ found @ vt.mT  # the same singular vectors: only the values were changed
    torch.testing.assert_close(diagonal, torch.diag_embed(diagonal.diagonal(dim1=1, dim2=2)), atol=1e-6, rtol=0)


def test_bfloat16_products_are_exact_enough():
    torch.manual_seed(0)
    matrices = torch.randn(2, 64, 96)
    with torch.autocast("cpu", torch.bfloat16):
        found = orthogonalize(matrices)
    assert found.dtype == torch.bfloat16  # that is, the products did run in it
    values = torch.linalg.svdvals(found.float())
    assert values.min() > 0.6 and values.max() < 1.3
    assert torch.cosine_similarity(found.float().flatten(1), orthogonalize(matrices).flatten(1)).min() > 0.99


@pytest.mark.parametrize("shape", [(4, 4, 1, 1), (8, 2, 2, 2), (6, 3)])
def test_a_step_moves_along_the_orthogonalised_momentum(shape):
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(shape))
    before, average = weight.detach().clone(), torch.zeros(shape)
    optimizer = Muon([weight], lr=0.1, momentum=0.9, weight_decay=0.5)
    for _ in range(3):
        weight.grad = torch.randn(shape)
        average = 0.9 * average + 0.1 * weight.grad
        ahead = 0.1 * weight.grad + 0.9 * average
        taller = max(1, shape[0] / ahead.flatten(1).shape[1]) ** 0.5
        before = before * (1 - 0.05) - 0.1 * taller * orthogonalize(ahead.flatten(1)[None])[0].view(shape)
        optimizer.step()
    torch.testing.assert_close(weight.detach(), before)


def test_a_parameter_without_a_gradient_stays():
    still, moved = (nn.Parameter(torch.ones(3, 3)) for _ in range(2))
    moved.grad = torch.eye(3)
    Muon([still, moved]).step()
    assert torch.equal(still.detach(), torch.ones(3, 3))
    assert not torch.equal(moved.detach(), torch.ones(3, 3))
