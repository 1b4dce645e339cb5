"""`python -m nanotasks` is the command line."""

from nanotasks.ops.cli import main

if __name__ == "__main__":
    main()
