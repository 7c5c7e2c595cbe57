"""`python -m tallystick`: the same as the `tallystick` command."""

from tallystick.cli import main

if __name__ == "__main__":
    main()
