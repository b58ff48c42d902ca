"""Studies made without training, as the tests of analysis make them."""

from analysis.conftest import maker as maker
