"""A run as one HTML page that needs nothing but a browser: no server, no network, no other file.

from fdd_ray.report.html.page import render
html = render("runs/tiny")

What models and data sets wrote is hostile: it reaches the page through `fdd_ray.report.html.markup` alone.
"""
