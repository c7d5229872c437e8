"""Subspaces of matrices: orthonormal bases, principal angles, relative errors."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def at_least_float32(matrix: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The matrix in float32 or wider: half-precision types have no factorisations, and too few digits for them."""
    return matrix.to(torch.promote_types(matrix.dtype, torch.float32))


def column_basis(matrix: Float[Tensor, "d n"], tolerance: float | None = None) -> Float[Tensor, "d k"]:
    """Q with orthonormal columns that span the columns of `matrix`: its left-singular vectors, largest first.

    Computed in float32 at least. The projector on the column space is Q Q^T.

    Args:
        matrix: any matrix; of a zero matrix the basis has no columns.
        tolerance: directions with a singular value of at most this share of the largest are left out; None:
            max(d, n) times the precision of the dtype, the usual tolerance of a rank.
    """
    wide = at_least_float32(matrix)
    left, s, _ = torch.linalg.svd(wide, full_matrices=False)
    if not s.numel():
        return left
    if tolerance is None:
        tolerance = max(matrix.shape) * torch.finfo(wide.dtype).eps
    return left[:, s > tolerance * s[0]]


def padded_column_basis(matrix: Float[Tensor, "*batch d n"], tolerance: float) -> Float[Tensor, "*batch d n"]:
    """A basis of the columns of `matrix` in a matrix of its shape: columns are orthonormal or zero.

    The zero columns stand for the directions that `tolerance` leaves out, so the shape says nothing of the values:
    this compiles into a graph, and never waits for a GPU to tell a rank. Q Q^T is the projector all the same. For
    tall, thin matrices (n << d): it works on the n x n products of the columns.

    Computed and returned in float64, whatever the dtype of the matrix: products of columns square the condition number,
    and autocast and TensorFloat-32, which cut float32 products to a few digits, leave float64 alone. Only where a
    device has no float64 (Apple's) it is computed on the CPU and returned in float32. Not meant to be differentiated.

    Args:
        matrix: any matrix.
        tolerance: directions with a singular value of at most this share of the largest are left out; not below
            1e-6, where rounding makes directions up.
    """
    has_double = matrix.device.type != "mps"
    wide = (matrix if has_double else matrix.cpu()).double()
    products = wide.mT @ wide
    # On the CPU: so small a problem is solved there before the solver of a GPU has started.
    solved = torch.linalg.eigh(products if products.is_meta else products.cpu())
    squares, vectors = (part.to(wide.device) for part in solved)  # ascending
    kept = squares > tolerance**2 * squares[..., -1:]
    scales = torch.where(kept, squares, 1).rsqrt() * kept
    basis = wide @ (vectors * scales[..., None, :])
    # Small directions are orthonormal only to 1e-16 / tolerance^2 so far; one Newton-Schulz step squares that error.
    basis = 1.5 * basis - 0.5 * basis @ (basis.mT @ basis)
    return basis if has_double else basis.to(matrix.device, torch.float32)


def leading_right_vectors(matrix: Float[Tensor, "d n"], count: int) -> Float[Tensor, "count n"]:
    """The right-singular vectors of the `count` largest singular values, as rows, the largest first.

    The eigenvectors of M^T M. Computed in float64, so that squaring loses no digit of a float32 matrix; on the CPU
    where a device has no float64 (Apple's). Returned on the device of the matrix, in its dtype but at least in float32.

    Args:
        matrix: M. Vectors of singular values that are zero, or equal, are any orthonormal ones.
        count: how many, from 1 to n.
    """
    wide = (matrix if matrix.device.type != "mps" else matrix.cpu()).double()
    _, vectors = torch.linalg.eigh(wide.mT @ wide)  # ascending
    leading = vectors[:, -count:].flip(1).mT
    return leading.to(matrix.device, torch.promote_types(matrix.dtype, torch.float32))


def project_out(matrix: Float[Tensor, "d ..."], basis: Float[Tensor, "d k"]) -> Float[Tensor, "d ..."]:
    """(I - Q Q^T) M, the part of each column that is orthogonal to the span of `basis`.

    Computed in the dtype of the basis, which should be float64 (`padded_column_basis`), and returned in that of the
    matrix, but at least in float32.

    Args:
        matrix: M, or one vector.
        basis: Q, whose columns are orthonormal or zero.
    """
    wide = matrix.to(basis.dtype)
    return (wide - basis @ (basis.mT @ wide)).to(torch.promote_types(matrix.dtype, torch.float32))


def principal_angles(first: Float[Tensor, "d k"], second: Float[Tensor, "d l"]) -> Float[Tensor, " angles"]:
    """The min(k, l) principal angles between two subspaces of R^d in radians, the smallest first.

    Small angles are taken from their sines and large ones from their cosines (Bjorck and Golub, 1973), so each is
    right to the precision of the dtype.

    Args:
        first: a basis with orthonormal columns, as `column_basis` returns it.
        second: another.
    """
    if first.shape[1] < second.shape[1]:
        first, second = second, first
    overlap = first.mT @ second
    cosines = torch.linalg.svdvals(overlap)
    sines = torch.linalg.svdvals(second - first @ overlap).flip(0)
    small = cosines.square() > 0.5
    return torch.where(small, torch.asin(sines.clamp(max=1)), torch.acos(cosines.clamp(max=1)))


def relative_error(approximation: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """||target - approximation||^2 / ||target||^2, squares summed over all entries.

    Raises:
        ValueError: the target is zero.
    """
    size = target.square().sum()
    if size == 0:
        raise ValueError("The target is zero: an error relative to it has no meaning.")
    return (target - approximation).square().sum() / size
