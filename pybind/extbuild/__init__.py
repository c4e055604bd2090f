"""Builds the compiled module ``natslease._natslease`` from the Go package ``pybind``.

gopy generates Go and (through pybindgen) C; :mod:`.patch` makes that fit the stable ABI; one
``go build`` compiles both into a single shared object. :mod:`.backend` is the PEP 517 entry,
``python -m extbuild`` the developer's.
"""
