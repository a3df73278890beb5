"""A tile server's map equals that of the picture it is cut from; it is asked once, again where it fails, and no more."""

from __future__ import annotations

import io
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

import geobind
from geobind import GeoBindError
from geobind.mapping.imagery import open_imagery
from tests.mapping.places import AXES, colour_space


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *given):
        pass

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers["User-Agent"]))
        if server.failures:
            server.failures -= 1
            self.send_error(503)
            return
        if server.status != 200:
            self.send_error(server.status)
            return
        z, x, y = (int(part) for part in self.path.strip("/").split(".")[0].split("/"))
        # Red runs east over the world, green south: a pixel's colour says where it is.
        along = (np.arange(256) + 0.5) / 256
        red = np.broadcast_to((x + along) / 2**z * 255, (256, 256))
        green = np.broadcast_to(((y + along) / 2**z * 255)[:, None], (256, 256))
        pixels = np.stack([red, green, np.full((256, 256), 250)], -1).round().astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "png")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(file.getvalue())


@contextmanager
def tiles():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.failures, server.status = [], 0, 200
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}/{{z}}/{{x}}/{{y}}.png"
    finally:
        server.shutdown()
        server.server_close()


def test_colours_lie_where_the_server_has_them_across_the_date_line_too():
    with tiles() as (server, template):
        server.failures = 2  # it recovers
        imagery = open_imagery(template, attribution="Example, CC BY")
        world = 2 * np.pi * 6_378_137
        given = {"ground": 1_000_000, "step": 1_000_000}
        found = geobind.map(colour_space(), AXES, (150, -60, -120, 60), imagery, **given)
        assert found.attrs["GEOBIND_ATTRIBUTION"] == "Example, CC BY"
        red, green, blue = found.values
        across = (found.x.values / world + 0.5) % 1
        whole = np.abs(across - 0.5) < 0.45  # elsewhere a tile has both ends of the scale
        np.testing.assert_allclose(
            (red / blue)[:, whole], np.tile(across[whole], (len(red), 1)) * 1.02, atol=0.03
        )
        np.testing.assert_allclose((green / blue)[:, 0], (0.5 - found.y.values / world) * 1.02, atol=0.03)
        paths = [path for path, _ in server.asked]
        assert {agent for _, agent in server.asked} == {"geobind"}
        assert len(paths) == len(set(paths)) + 2  # once each, and the two failures
        geobind.map(colour_space(), AXES, (150, -60, -120, 60), imagery, **given)
        assert len(server.asked) == len(paths)  # from the cache


@pytest.mark.parametrize(
    ("status", "times", "says"), [(403, 1, "answers 403"), (500, 4, "no answer after 4 attempts")]
)
def test_a_server_that_refuses_or_is_down_stops_the_map(monkeypatch, status, times, says):
    monkeypatch.setattr("geobind.media.http.time.sleep", lambda seconds: None)
    with tiles() as (server, template):
        server.status = status
        with pytest.raises(GeoBindError, match=says) as caught:
            geobind.map(colour_space(), AXES, (2, 48, 3, 49), template, ground=1000)
        assert "\n" not in str(caught.value)
        assert len(server.asked) == times


def test_templates_and_sizes_that_are_missing():
    with pytest.raises(GeoBindError, match=r"lacks \{y\}"):
        open_imagery("http://127.0.0.1/{z}/{x}.png")
    with pytest.raises(GeoBindError, match="every resolution: give the ground size"):
        geobind.map(colour_space(), AXES, (2, 48, 3, 49), "http://127.0.0.1/{z}/{x}/{y}.png")
