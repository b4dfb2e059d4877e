"""`python -m config`: writes docs/settings.md and config/default.toml from the table."""

from pathlib import Path

from config.reference import default_toml, settings_md

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Write both files into the checkout this package lies in."""
    for name, text in (("docs/settings.md", settings_md()), ("config/default.toml", default_toml())):
        (ROOT / name).write_text(text, encoding="utf-8")
        print(f"wrote {name}")


if __name__ == "__main__":
    main()
