"""How fast fleetswitch is, measured beside what a user would take instead, in the same run.

A case is a module of this package; ``CASES`` in ``__main__`` lists them. It has

- ``ABOUT``: one line for the list of cases;
- ``options(parser)``: adds its own options to an ``argparse.ArgumentParser``;
- ``measure(args) -> list[Figure]``: measures, leaves nothing behind, raises ``LabError`` when it cannot.
"""
