"""Official checkpoints of other systems to spaces: `geobind import`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from geobind.errors import GeoBindError, did_you_mean
from geobind.interop.folders import check_new, write_new
from geobind.interop.geoclap import geoclap
from geobind.interop.open_clip import open_clip
from geobind.interop.options import Activation, ImportOptions
from geobind.interop.reading import State, read_state
from geobind.interop.sat2cap import sat2cap
from geobind.interop.satmae import satmae
from geobind.space import GeoBind

Reader = Callable[[State, Path, Path, ImportOptions], GeoBind]

SYSTEMS: dict[str, Reader] = {
    "sat2cap": sat2cap,
    "geoclap": geoclap,
    "open_clip": open_clip,
    "satmae": satmae,
}
"""What can be read, by the name that `--as` takes."""

# A key of each system that no other has, by which a file is told; those that cannot be read have a reason.
_SIGNS = (
    ("imo_encoder.", "sat2cap"),
    ("sat_encoder.model.", "geoclap"),
    ("visual.transformer.resblocks.", "open_clip"),
    ("sat_encoder.encoder.", "psm"),
    ("model.location.", "satclip"),
    ("channel_cls_embed", "satmae"),
    ("visual.", "open_clip, but not a ViT (ResNet CLIPs are not covered)"),
)
_REFUSED = {
    "taxabind": "its layout could only be inferred from its configuration and was never compared with its outputs; "
    "its image and text towers are BioCLIP, which --as open_clip reads",
}


def import_checkpoint(
    file: str | Path,
    system: str,
    out: str | Path,
    *,
    tokenizer: str | Path | None = None,
    activation: Activation | None = None,
    modality: str = "satellite",
    target: str | Path | None = None,
) -> GeoBind:
    """A space from another system's official checkpoint, written to the folder `out` and returned.

    >>> import_checkpoint("RemoteCLIP-ViT-B-32.pt", "open_clip", "runs/remoteclip",
    ...                   tokenizer="openai/clip-vit-base-patch32", activation="gelu")
    GeoBind(dim=512, modalities=satellite, text)

    system: "sat2cap", "geoclap", "open_clip" or "satmae". tokenizer: folder or Hub id of the text tower's words,
    which checkpoints do not hold. activation: open_clip without its configuration. modality: what the
    pictures of an open_clip checkpoint are ("image" for BioCLIP). target: folder or Hub id of the frozen
    joint model that the checkpoint was trained against and does not hold.

    Every key is accounted for. Nothing in a pickle is run. Raises GeoBindError, and leaves `out` as it
    was, for an unknown system, a checkpoint of another one, missing or unexpected keys, a broken file.
    """
    reader = _reader(system)
    out = Path(out)
    check_new(out)
    state = read_state(file)
    _check_system(state, Path(file), system)
    options = ImportOptions(tokenizer, activation, modality, target)
    with TemporaryDirectory(prefix="geobind-import-") as temporary:
        space = reader(state, Path(file), Path(temporary), options)
        write_new(out, space.save_pretrained)
    return GeoBind.from_pretrained(out)


def _reader(system: str) -> Reader:
    if system in _REFUSED:
        raise GeoBindError(f"{system} is not imported: {_REFUSED[system]}")
    if system not in SYSTEMS:
        raise GeoBindError(f"no system {system!r}{did_you_mean(system, SYSTEMS)}")
    return SYSTEMS[system]


def _check_system(state: State, file: Path, system: str) -> None:
    for beginning, name in _SIGNS:
        if any(key.startswith(beginning) for key in state):
            if name != system:
                remedy = f": import it --as {name}" if name in SYSTEMS else ", which cannot be imported"
                raise GeoBindError(f"{file} is a checkpoint of {name}, not of {system}{remedy}")
            return
    raise GeoBindError(
        f"{file} is no checkpoint of {system}: its keys begin with {', '.join(sorted({k.split('.')[0] for k in state})[:5])}"
    )
