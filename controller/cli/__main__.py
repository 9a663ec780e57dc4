"""``python -m controller.cli``: the command line where no entry point is installed."""

from controller.cli.root import main

if __name__ == "__main__":
    main(prog_name="fleetswitch")
