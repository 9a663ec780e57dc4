"""The face of the controller over HTTP: REST under Flask, served by waitress."""
