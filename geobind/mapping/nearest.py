"""The nearest of some places on the globe."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geobind.errors import GeoBindError
from geobind.mapping.area import METRES_OF_DEGREE

_RADIUS = np.degrees(METRES_OF_DEGREE)


class Nearest:
    """Places (n,) in degrees, of which the nearest to a point is found without looking at all of them.

    >>> index, metres = Nearest([10.0, 10.0], [179.9, -170.0])([10.0], [-179.9], reach=50_000)
    >>> index, metres.round()
    (array([0]), array([21901.]))

    A k-d tree of points on the sphere, so poles and the date line are no borders. Raises GeoBindError without scipy.
    """

    def __init__(self, latitude: ArrayLike, longitude: ArrayLike) -> None:
        try:
            from scipy.spatial import cKDTree
        except ImportError:
            raise GeoBindError('nearest places need scipy: pip install "geobind[geo]"') from None
        self._tree = cKDTree(_on_sphere(latitude, longitude))

    def __call__(
        self, latitude: ArrayLike, longitude: ArrayLike, reach: float = np.inf
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """(m,) index of the nearest place and its distance in metres along the ground; -1 and infinite beyond `reach`."""
        half = min(reach / (2 * _RADIUS), np.pi / 2)
        chord, index = self._tree.query(
            _on_sphere(latitude, longitude), distance_upper_bound=np.nextafter(2 * np.sin(half), np.inf)
        )
        found = np.isfinite(chord)
        metres = 2 * _RADIUS * np.arcsin(np.minimum(np.where(found, chord, 0) / 2, 1))
        return np.where(found, index, -1), np.where(found, metres, np.inf)


def _on_sphere(latitude: ArrayLike, longitude: ArrayLike) -> NDArray[np.float64]:
    """(n, 3) unit vectors."""
    phi, theta = np.radians(np.asarray(latitude, float)), np.radians(np.asarray(longitude, float))
    return np.stack([np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)], axis=-1)
