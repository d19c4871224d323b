"""Reports as pages of one file, which open without a network."""

from keras_mtl.pages.page import Picture, write_page

__all__ = ["Picture", "write_page"]
