from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from typing_extensions import Buffer

# --- kernels.pxi -----------------------------------------------------------------------------

_Out = TypeVar("_Out")

@overload
def interleave(
    planes: Buffer | Sequence[Buffer],
    *,
    channels: Sequence[int] | None = None,
    dtype: DTypeLike | None = None,
    out: None = None,
) -> NDArray[Any]: ...
@overload
def interleave(
    planes: Buffer | Sequence[Buffer],
    *,
    channels: Sequence[int] | None = None,
    dtype: DTypeLike | None = None,
    out: _Out,
) -> _Out: ...
@overload
def deinterleave(
    frames: Buffer,
    *,
    channels: Sequence[int] | None = None,
    dtype: DTypeLike | None = None,
    out: None = None,
) -> NDArray[Any]: ...
@overload
def deinterleave(
    frames: Buffer,
    *,
    channels: Sequence[int] | None = None,
    dtype: DTypeLike | None = None,
    out: _Out,
) -> _Out: ...
@overload
def mix(
    planes: Buffer | Sequence[Buffer],
    gains: ArrayLike,
    *,
    to_gains: ArrayLike | None = None,
    out: None = None,
) -> NDArray[np.float32]: ...
@overload
def mix(
    planes: Buffer | Sequence[Buffer],
    gains: ArrayLike,
    *,
    to_gains: ArrayLike | None = None,
    out: _Out,
) -> _Out: ...
@overload
def to_int16(samples: Buffer, *, out: None = None) -> NDArray[np.int16]: ...
@overload
def to_int16(samples: Buffer, *, out: _Out) -> _Out: ...
@overload
def to_float32(samples: Buffer, *, out: None = None) -> NDArray[np.float32]: ...
@overload
def to_float32(samples: Buffer, *, out: _Out) -> _Out: ...
def levels(
    planes: Buffer | Sequence[Buffer],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
def simd() -> str: ...
def simd_available() -> tuple[str, ...]: ...
def force_simd(name: str | None, /) -> AbstractContextManager[None]: ...
