"""Plug-ins for node processes of tests, installed as a package of a user's would be."""

from pathlib import Path


def install(path: Path, source: Path, kind: str) -> tuple[str, ...]:
    """Puts the module into a directory of packages, its `KIND` under that entry point; the command prefix under which
    a node finds it."""
    path.mkdir(parents=True, exist_ok=True)
    (path / source.name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    metadata = path / f"{source.stem}-1.0.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {source.stem}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[raftnode.tasks]\n{kind} = {source.stem}:KIND\n")
    return ("env", f"PYTHONPATH={path}")
