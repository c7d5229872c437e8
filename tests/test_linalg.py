"""Bases, principal angles and relative errors, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.testing import assert_close

from trimtab.linalg import (
    at_least_float32,
    column_basis,
    leading_right_vectors,
    padded_column_basis,
    principal_angles,
    project_out,
    relative_error,
)


def _draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_a_basis_spans_the_columns_and_no_more(rank: int) -> None:
    """Orthonormal, as many columns as the rank, and the projector is that of scipy's basis."""
    matrix = _draw(7, rank) @ _draw(rank, 5)
    basis = column_basis(matrix)
    assert_close(basis.T @ basis, torch.eye(rank, dtype=torch.float64))
    other = torch.from_numpy(scipy.linalg.orth(matrix.numpy()))
    assert_close(basis @ basis.T, other @ other.T)


def test_a_basis_is_ordered_by_size() -> None:
    """The first k columns are the best k-dimensional space for the matrix."""
    directions = torch.linalg.qr(_draw(6, 3)).Q
    basis = column_basis(
        directions @ torch.diag(torch.tensor([0.1, 10.0, 1.0]).double()) @ torch.linalg.qr(_draw(9, 3)).Q.T
    )
    assert_close((basis.T @ directions).abs(), torch.eye(3).double()[[1, 2, 0]])


def test_directions_below_the_tolerance_are_left_out() -> None:
    """The tolerance is relative to the largest singular value."""
    matrix = torch.diag(torch.tensor([100.0, 1.0, 1e-3]))
    assert column_basis(matrix).shape == (3, 3)
    assert column_basis(matrix, tolerance=1e-3).shape == (3, 2)
    assert column_basis(matrix, tolerance=0.1).shape == (3, 1)


@pytest.mark.parametrize("columns", [0, 4])
def test_nothing_has_an_empty_basis(columns: int) -> None:
    """The columns of a zero matrix, or of one without columns, span nothing."""
    assert column_basis(torch.zeros(5, columns)).shape == (5, 0)


def test_half_precision_is_computed_in_float32() -> None:
    """bfloat16 has no factorisations: the result is float32; float64 stays."""
    matrix = torch.randn(6, 2).bfloat16()
    basis = column_basis(matrix)
    assert basis.dtype == torch.float32
    assert_close(basis.T @ basis, torch.eye(2))
    assert at_least_float32(matrix).dtype == torch.float32
    assert at_least_float32(_draw(2)).dtype == torch.float64


@pytest.mark.parametrize("rank", [0, 1, 3, 5])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_a_padded_basis_has_the_shape_of_the_matrix(rank: int, scale: float) -> None:
    """As many orthonormal columns as the rank, zeros for the others; the projector is that of scipy's basis."""
    matrix = _draw(9, rank) @ _draw(rank, 5)
    basis = padded_column_basis(scale * matrix, 1e-6)
    assert basis.shape == matrix.shape
    sizes = basis.norm(dim=0)
    assert_close(sizes, (sizes > 0.5).double())
    assert int(sizes.sum()) == rank
    other = torch.from_numpy(scipy.linalg.orth(matrix.numpy()))
    assert_close(basis @ basis.T, other @ other.T, rtol=0, atol=1e-12)


def test_a_padded_basis_of_nearly_dependent_columns() -> None:
    """Orthonormal to 1e-8 although the columns agree to five digits; below the tolerance a direction is left out."""
    left, right = torch.linalg.qr(_draw(50, 4)).Q, torch.linalg.qr(_draw(4, 4)).Q
    matrix = left @ torch.diag(torch.tensor([1.0, 0.9, 3e-5, 2e-5]).double()) @ right
    basis = padded_column_basis(matrix, 1e-5)
    assert_close(basis.T @ basis, torch.eye(4).double(), rtol=0, atol=1e-8)
    assert_close(basis @ basis.T, left @ left.T, rtol=0, atol=1e-8)
    coarse = padded_column_basis(matrix, 1e-3)
    assert_close(coarse @ coarse.T, left[:, :2] @ left[:, :2].T, rtol=0, atol=1e-8)


def test_a_padded_basis_of_a_batch() -> None:
    """Each matrix has its own tolerance, relative to its own largest direction; half precision goes to float64."""
    batch = torch.stack([torch.eye(4, 3), 1e-9 * torch.eye(4, 3)]).bfloat16()
    basis = padded_column_basis(batch, 1e-6)
    assert basis.dtype == torch.float64
    assert_close(basis @ basis.mT, torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0])).double().expand(2, 4, 4))


@pytest.mark.parametrize("shape", [(8,), (8, 3)])
def test_what_is_projected_out(shape: tuple[int, ...]) -> None:
    """The residual of scipy's least squares on the spanning columns, in the precision of float32."""
    spanning, matrix = _draw(8, 2), torch.randn(*shape)
    found = project_out(matrix, padded_column_basis(spanning, 1e-6))
    coefficients, *_ = scipy.linalg.lstsq(spanning.numpy(), matrix.double().numpy())
    assert found.dtype == torch.float32
    assert_close(found.double(), matrix.double() - spanning @ torch.from_numpy(coefficients), rtol=1e-6, atol=1e-6)
    assert float((spanning.T @ found.double()).norm()) < 1e-6


@pytest.mark.parametrize(("first", "second"), [(3, 3), (2, 4), (4, 1)])
def test_principal_angles_are_those_of_scipy(first: int, second: int) -> None:
    """In radians, the smallest first."""
    bases = [column_basis(_draw(8, count)) for count in (first, second)]
    wanted = np.sort(scipy.linalg.subspace_angles(*(basis.numpy() for basis in bases)))
    np.testing.assert_allclose(principal_angles(*bases).numpy(), wanted, rtol=0, atol=1e-12)


def test_tiny_and_right_angles_keep_their_digits() -> None:
    """An angle of 1e-9, which a cosine cannot show, and one of 90 degrees."""
    turned = torch.zeros(4, 2, dtype=torch.float64)
    turned[0, 0], turned[2, 0], turned[3, 1] = np.cos(1e-9), np.sin(1e-9), 1.0
    angles = principal_angles(torch.eye(4, 2, dtype=torch.float64), turned)
    np.testing.assert_allclose(angles.numpy(), [1e-9, np.pi / 2], rtol=1e-12)


@pytest.mark.parametrize("shape", [(7, 7), (4, 9), (30, 9)])
def test_leading_right_vectors_are_those_of_a_decomposition(shape: tuple[int, int]) -> None:
    """Up to sign, the same as NumPy's; also where the square of a singular value is below float32's precision."""
    smaller = min(shape)
    left, right = (torch.linalg.qr(_draw(size, smaller))[0] for size in shape)
    matrix = (left * 10.0 ** (-2 * torch.arange(smaller)) @ right.T).float()
    found = leading_right_vectors(matrix, 3).numpy()
    *_, rows = np.linalg.svd(matrix.double().numpy())
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.abs((found * rows[:3]).sum(1)), 1, atol=1e-5)
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-6)


def test_leading_vectors_of_half_precision_are_in_float32() -> None:
    """Orthonormal to float32's precision."""
    found = leading_right_vectors(_draw(8, 6).bfloat16(), 3)
    assert found.dtype == torch.float32
    assert_close(found @ found.T, torch.eye(3), atol=1e-6, rtol=0)


def test_a_matrix_of_a_lower_rank_has_orthonormal_leading_vectors() -> None:
    """More directions than the matrix has: the rest are orthonormal ones it sends to zero."""
    matrix = _draw(6, 1) @ _draw(1, 8)
    found = leading_right_vectors(matrix, 4)
    assert_close(found @ found.T, torch.eye(4, dtype=torch.float64))
    assert_close(matrix @ found[1:].T, torch.zeros(6, 3, dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_relative_error_is_a_share_of_squares() -> None:
    """(3^2 + 4^2) of which 4^2 are missed; relative to nothing there is none."""
    target = torch.tensor([3.0, 4.0])
    assert relative_error(torch.tensor([3.0, 0.0]), target).item() == pytest.approx(16 / 25)
    with pytest.raises(ValueError, match="target is zero"):
        relative_error(target, torch.zeros(2))
