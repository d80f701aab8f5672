"""What commands need beyond the installation without extras."""

from importlib.util import find_spec

from meshwright.catalog.errors import MeshwrightError


def require_torch(what: str) -> None:
    """Raise MeshwrightError where PyTorch isn't installed, which `what` needs."""
    if find_spec("torch") is None:
        raise MeshwrightError(f"{what} needs PyTorch, which isn't installed", hint="pip install 'meshwright[torch]'")
