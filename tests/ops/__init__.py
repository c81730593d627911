"""Checks of everything operators copy: units, rules, runbooks, the image and the build itself."""
