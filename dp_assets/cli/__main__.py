"""The command as a module: `python -m dp_assets.cli`."""

from dp_assets.cli import main

main()
