"""Prints the folder where PyTorch's packages keep NVRTC; nothing where the loader finds one anyway, or none is there."""

import ctypes
import importlib.util
import pathlib


def loads(name):
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def folders():
    """Of nvidia/cuda_nvrtc (CUDA 12) or nvidia/cu13, beside PyTorch or anywhere on the path."""
    try:
        places = importlib.util.find_spec("nvidia").submodule_search_locations
    except AttributeError:
        places = []
    torch = importlib.util.find_spec("torch")
    places = list(places) + ([pathlib.Path(torch.origin).parents[1] / "nvidia"] if torch else [])
    for place in places:
        for folder in ("cuda_nvrtc/lib", "cu13/lib"):
            if any(pathlib.Path(place, folder).glob("libnvrtc.so*")):
                yield pathlib.Path(place, folder)


if not any(loads(name) for name in ("libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12")):
    print(next(folders(), ""))
