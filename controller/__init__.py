"""The controller: rows in a store become flows, bridges and ports on every host of the fleet."""

from controller import late

late.install()
