"""Handing a student on: a Hugging Face model folder with a model card that is written from the run's own books.

    from fdd_ray.export.folder import export_student
    export_student("runs/tiny", "my-student", round=None)

``facts`` reads what a run knows of a student, ``card`` turns that into README.md, ``markdown`` keeps what models
and data wrote from becoming markup, and ``folder`` puts the files in their place, whole or not at all.
"""
