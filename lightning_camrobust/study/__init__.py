"""The paper's experiment as one command: a grid measured offline, with statistics, tables, figures and a page.

Example:
    >>> from lightning_camrobust.study import StudyGrid
    >>> len(StudyGrid(methods="gradcam", perturbations=["fog"], severities=(1, 5)).plan().cells)
    2
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
