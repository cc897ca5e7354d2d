"""Motion as coefficients of a rig (ARKit's 52 shapes, FLAME's expressions, components of one's own).

Floor plan:

- ``basis``: what the coefficients do to a mesh (:class:`LinearBasis`, ``basis.npz``)
"""
