"""`python -m winnow_cli`."""

from winnow_cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
