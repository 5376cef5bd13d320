"""The real endpoint, for the tests of this folder."""

from tests.engines.endpoint import tiny_endpoint

__all__ = ["tiny_endpoint"]
