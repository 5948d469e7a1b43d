"""The step that lays one picture on another best: SimpleITK's optimiser.

It moves one picture until its grey values predict those of the other best (mutual
information, Mattes et al. 2003).
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_histodistill.distill.layers.likeness import BINS
from napari_histodistill.distill.layers.registration import inverse
from napari_histodistill.errors import ComputeError, InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_histodistill.distill.layers.registration import RegistrationKind
    from napari_histodistill.distill.layers.thumbnails import Laid
    from napari_histodistill.running import CancelToken

    Doubles = npt.NDArray[np.float64]

ROUNDS = 80
_FEW_PIXELS = 2**17

NEAR, FAR = (4, 2), (8, 4, 2)
"""How much the pictures are shrunk, step by step."""


class Optimiser:
    """Search for the best step, one run per start; SimpleITK gets the pictures once.

    SimpleITK's order is (x, y), here in pixels of the pictures.

    Parameters
    ----------
    laid : Laid
        Both pictures in one frame; they are compared where both reach.
    kind : {"rigid", "similarity", "affine"}
        What a step may do.
    cancel : CancelToken
        Asked in every iteration.
    budget_s : float
        Seconds after which a run ends with the best so far.
    bounded : bool
        Whether pixels that a step brings in from outside are left out, too.

    rounds : int
        Iterations at most, at each size.

    Raises
    ------
    InputError
        If SimpleITK is not installed.
    """

    def __init__(
        self,
        laid: Laid,
        kind: RegistrationKind,
        cancel: CancelToken,
        *,
        budget_s: float,
        bounded: bool = False,
        rounds: int = ROUNDS,
    ) -> None:
        self._itk = simpleitk()
        self._kind, self._cancel, self._budget_s = kind, cancel, budget_s
        self._bounded, self._rounds = bounded, rounds
        self._sparse = self._itk.GetImageFromArray(laid.sparse)
        self._dense = self._itk.GetImageFromArray(laid.dense)
        self._mask = self._itk.GetImageFromArray(laid.inside.astype(np.uint8))
        rows, columns = np.nonzero(laid.inside)
        self._centre = float(columns.mean()), float(rows.mean())
        um = np.diag([laid.um, laid.um, 1.0])
        um[:2, 2] = laid.origin_um
        swap = np.eye(3)[[1, 0, 2]]
        self._to_um = um @ swap

    def run(self, start: Doubles, shrink: tuple[int, ...] = NEAR) -> Doubles:
        """Return the best step ``(3, 3)`` in µm, from a start ``(3, 3)`` in µm.

        Raises
        ------
        ComputeError
            If SimpleITK fails.
        Cancelled
            When asked to stop.
        """
        self._cancel.check()
        moved = self._transform(inverse(self._to_um) @ start @ self._to_um)
        method = self._method(moved, shrink)
        until = time.monotonic() + self._budget_s

        def look() -> None:
            if self._cancel.cancelled or time.monotonic() > until:
                method.StopRegistration()

        method.AddCommand(self._itk.sitkIterationEvent, look)
        try:
            method.Execute(self._sparse, self._dense)
        except RuntimeError as error:
            # The last line of ITK's message is the reason; those before name its
            # source.
            last = str(error).strip().splitlines()[-1]
            msg = f"The layers could not be compared: {last}"
            raise ComputeError(msg) from error
        self._cancel.check()
        return self._to_um @ self._matrix(moved) @ inverse(self._to_um)

    def _method(self, moved: Any, shrink: tuple[int, ...]) -> Any:
        itk = self._itk
        method = itk.ImageRegistrationMethod()
        if self._sparse.GetNumberOfPixels() < _FEW_PIXELS:
            method.SetNumberOfThreads(1)  # sharing out takes longer than the work
        method.SetMetricAsMattesMutualInformation(BINS)
        method.SetMetricFixedMask(self._mask)
        if self._bounded:
            method.SetMetricMovingMask(self._mask)
        # Every pixel: with random samples, the answer moved by a pixel with the seed.
        method.SetMetricSamplingStrategy(method.NONE)
        method.SetInterpolator(itk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=2.0,
            minStep=0.01,
            numberOfIterations=self._rounds,
            gradientMagnitudeTolerance=1e-8,
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel(list(shrink))
        method.SetSmoothingSigmasPerLevel(list(shrink))
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
        method.SetInitialTransform(moved, inPlace=True)
        return method

    def _transform(self, matrix: Doubles) -> Any:
        shape = {
            "rigid": self._itk.Euler2DTransform,
            "similarity": self._itk.Similarity2DTransform,
            "affine": lambda: self._itk.AffineTransform(2),
        }[self._kind]()
        centre = np.array(self._centre)
        shape.SetCenter(self._centre)
        shift = matrix[:2, :2] @ centre + matrix[:2, 2] - centre
        if self._kind == "affine":
            shape.SetMatrix(matrix[:2, :2].ravel().tolist())
        else:
            shape.SetAngle(math.atan2(matrix[1, 0], matrix[0, 0]))
        if self._kind == "similarity":
            shape.SetScale(math.sqrt(abs(float(np.linalg.det(matrix[:2, :2])))))
        shape.SetTranslation(shift.tolist())
        return shape

    def _matrix(self, moved: Any) -> Doubles:
        matrix, centre = np.eye(3), np.array(moved.GetCenter())
        matrix[:2, :2] = np.reshape(moved.GetMatrix(), (2, 2))
        shift = centre + moved.GetTranslation() - matrix[:2, :2] @ centre
        matrix[:2, 2] = shift
        return matrix


def simpleitk() -> Any:
    """Return the library.

    Raises
    ------
    InputError
        If it is not installed.
    """
    try:
        import SimpleITK
    except ImportError as error:
        msg = (
            "Refining needs SimpleITK: install it with "
            'pip install "napari-histodistill[registration]".'
        )
        raise InputError(msg) from error
    return SimpleITK
