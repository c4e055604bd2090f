"""Edits gopy's and pybindgen's output into code for CPython's stable ABI.

Every edit states how often its pattern must occur and raises :class:`PatchError` otherwise, so
that a new release of either generator stops the build instead of changing what is built.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Set
from typing import NamedTuple

# The oldest CPython whose stable ABI is used: 3.10.
LIMITED_API = "0x030A0000"

_PACKAGE_PREFIX = "pybind_"
# What Python needs beside the package's own functions. The rest of gopy's exports (slices of every
# basic type, a collector hook) would only be dead code in the shared object.
_SUPPORT = frozenset({"NumHandles", "Slice_byte_from_bytes", "Slice_byte_to_bytes"})


class PatchError(Exception):
    """The generated code is not what the patch was written for."""


class _Edit(NamedTuple):
    why: str
    pattern: str
    replacement: str
    times: int = 1


# gopy writes C for the full API of the Python that runs it, and links that Python's library.
_GO_EDITS = (
    _Edit(
        "libpython must not be linked: the interpreter provides its symbols",
        r"^#cgo CFLAGS: [^\n]*\n#cgo LDFLAGS: [^\n]*\n",
        "#cgo CFLAGS: -O2 -DPy_LIMITED_API={limited_api} {include}\n",
    ),
    _Edit(
        "the stable ABI is defined on the command line",
        r"^// #define Py_LIMITED_API // need full API for PyRun\*\n",
        "",
    ),
    _Edit(
        "PyMethod_Check is not in the stable ABI; only callbacks use it",
        r"^static inline int gopy_method_check\(PyObject\* obj\) \{[^\n]*\n[^\n]*\n\}\n",
        "",
    ),
    _Edit(
        "PyComplex_AsCComplex is not in the stable ABI",
        r"^func complex(?:64|128)(?:GoToPy|PyToGo)\(.*?^\}\n\n",
        "",
        times=4,
    ),
    _Edit(
        "no goroutine is started before the first operation",
        r"^// _gcReq carries GC requests.*?^//export RequestGC\nfunc RequestGC\(\) \{\n.*?^\}\n\n",
        "",
    ),
    # PyBytes_Size is -1 for anything else than bytes (with TypeError set); make would then panic.
    _Edit(
        "a value that is not bytes raises TypeError instead of aborting the process",
        r"(?<=^func Slice_byte_from_bytes\(o \*C\.PyObject\) CGoHandle \{\n"
        r"\tsize := C\.PyBytes_Size\(o\)\n)",
        "\tif size < 0 {{\n\t\treturn -1\n\t}}\n",
    ),
    # A handle begins with a count of 0, and one that nobody counts stays for ever. Every handle is
    # read once, so reading can end it, and saves Python two calls.
    _Edit(
        "reading a byte slice ends its handle",
        r"(?<=^func deptrFromHandle_Slice_byte\(h CGoHandle\) \[\]byte \{\n"
        r"\tp := ptrFromHandle_Slice_byte\(h\)\n\tif p == nil \{\n\t\treturn nil\n\t\}\n)",
        "\tgopyh.IncRef(gopyh.CGoHandle(h))\n\tgopyh.DecRef(gopyh.CGoHandle(h))\n",
    ),
    _Edit(
        "an empty slice has no first element to point at",
        r"^\tptr := unsafe\.Pointer\(&s\[0\]\)\n"
        r"\tsize := len\(s\)\n"
        r"\treturn C\.PyBytes_FromStringAndSize\(\(\*C\.char\)\(ptr\), C\.long\(size\)\)\n",
        "\tptr := unsafe.Pointer(unsafe.SliceData(s))\n"
        "\treturn C.PyBytes_FromStringAndSize((*C.char)(ptr), C.Py_ssize_t(len(s)))\n",
    ),
)

_STUB_EDITS = (
    _Edit(
        "cgo compiles the wrappers in the same package as the functions they call",
        r"^mod\.add_include\('\"{name}_go\.h\"'\)$",
        "mod.add_include('\"_cgo_export.h\"')",
    ),
    _Edit(
        "Slice_byte_from_bytes can fail now",
        r"^mod\.add_function\('Slice_byte_from_bytes'",
        "add_checked_function(mod, 'Slice_byte_from_bytes'",
    ),
)

_C_EDITS = (
    _Edit(
        "PyAsyncMethods is not in the stable ABI; the type is not used",
        r"^typedef PyAsyncMethods\* cmpfunc;$",
        "typedef void* cmpfunc;",
    ),
)


def patch_go(source: str, *, include: str) -> str:
    """Patches the generated Go file; ``include`` is the folder of Python.h."""
    if any(c in include for c in "\"'\\\n"):
        raise PatchError(f"quotes or backslashes in the path of Python.h: {include}")
    source = _apply(source, _GO_EDITS, limited_api=LIMITED_API, include=f'"-I{include}"')
    kept = {name for name in re.findall(r"^//export (\w+)$", source, re.M) if _is_wanted(name)}
    _require_support(kept, "Go")
    return re.sub(r"^//export (\w+)\n", lambda m: m[0] if m[1] in kept else "", source, flags=re.M)


def patch_stubs(source: str, *, name: str) -> str:
    """Patches ``build.py``, the pybindgen script that gopy generates."""
    source = _apply(source, _STUB_EDITS, name=name)
    kept: set[str] = set()

    def keep(match: re.Match[str]) -> str:
        if not _is_wanted(match["function"]):
            return ""
        kept.add(match["function"])
        return match[0]

    source = re.sub(
        r"^(?:mod\.add_function\(|add_checked\w*_function\(mod, )'(?P<function>\w+)',.*\n",
        keep,
        source,
        flags=re.M,
    )
    _require_support(kept, "pybindgen")
    return source


def patch_c(source: str) -> str:
    """Patches the C file that pybindgen generates."""
    return _apply(source, _C_EDITS)


def _is_wanted(name: str) -> bool:
    return name in _SUPPORT or name.startswith(_PACKAGE_PREFIX)


def _require_support(kept: Set[str], generator: str) -> None:
    missing = sorted(_SUPPORT - kept)
    if missing:
        raise PatchError(f"the generated {generator} code lacks {', '.join(missing)}")
    if not any(name.startswith(_PACKAGE_PREFIX) for name in kept):
        raise PatchError(f"the generated {generator} code exports nothing of the package")


def _apply(source: str, edits: tuple[_Edit, ...], **values: str) -> str:
    for edit in edits:
        # Only these two patterns and replacements have fields; the others are full of braces.
        pattern = edit.pattern.replace("{name}", re.escape(values.get("name", "")))
        replacement = edit.replacement.format(**values)
        # A function's result is taken as it is; in a string backslashes would be escapes.
        source, count = re.subn(pattern, _constant(replacement), source, flags=re.M | re.S)
        if count != edit.times:
            raise PatchError(
                f"expected {edit.times} of {edit.pattern!r} in the generated code, found {count} "
                f"({edit.why})"
            )
    return source


def _constant(text: str) -> Callable[[re.Match[str]], str]:
    return lambda _: text
