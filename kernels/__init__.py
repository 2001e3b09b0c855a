"""Kernels with their references, packaged as `lrnn.kernels`; nothing here imports lrnn."""

if __name__ == "kernels":
    # Found from a checkout's root, ahead of an installed Hugging Face `kernels`: hand over to that one.
    import importlib.machinery
    import importlib.util
    import sys
    from pathlib import Path

    _root = Path(__file__).resolve().parents[1]
    _elsewhere = [p for p in sys.path if Path(p or ".").resolve() != _root]
    _spec = importlib.machinery.PathFinder.find_spec("kernels", _elsewhere)
    if _spec is None or _spec.loader is None:
        raise ModuleNotFoundError(
            "No module named 'kernels' (this checkout's folder of that name is lrnn.kernels)"
        )
    sys.modules["kernels"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["kernels"])
