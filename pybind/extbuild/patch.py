"""Edits gopy's and pybindgen's output into code for CPython's stable ABI.

Every edit states how often its pattern must occur and raises :class:`PatchError` otherwise, so
that a new release of either generator stops the build instead of changing what is built.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from typing import NamedTuple

# The oldest CPython whose stable ABI is used: 3.10.
LIMITED_API = "0x030A0000"

_PACKAGE_PREFIX = "pybind_"
# What is needed beside the package's own functions: in C, and of that in Python. The rest of what
# gopy exports (slices of every basic type, a collector hook) would only be dead code.
_FOR_PYTHON = frozenset({"NumHandles"})
_FOR_C = _FOR_PYTHON | {"Slice_byte_from_bytes", "Slice_byte_to_bytes"}


class PatchError(Exception):
    """The generated code is not what the patch was written for."""


class Signature(NamedTuple):
    """Which parameters of an export are byte slices, and whether its result is one."""

    parameters: tuple[bool, ...]
    result: bool


class _Edit(NamedTuple):
    why: str
    pattern: str
    replacement: str
    times: int = 1


# gopy writes C for the full API of the Python that runs it, and links that Python's library.
_GO_EDITS = (
    _Edit(
        "the command line has this machine's paths, and names that C sees are hashes of all this",
        r"^gopy gen [^\n]*\n",
        "",
    ),
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
)

# The interpreter is let go of, and taken back, in C: a thread that wants it back when the
# interpreter has ended is ended there, which must not happen below frames of Go.
_GO_RELEASE = (
    "\t_saved_thread := C.PyEval_SaveThread()\n\tdefer C.PyEval_RestoreThread(_saved_thread)\n"
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
    exports = re.findall(r"^//export (\w+)$", source, re.M)
    kept = {name for name in exports if name in _FOR_C or name.startswith(_PACKAGE_PREFIX)}
    _require(_FOR_C, kept, "Go")
    releases = source.count(_GO_RELEASE)
    if releases != len(kept - _FOR_C) or releases != source.count("PyEval_SaveThread"):
        raise PatchError(f"the interpreter is let go of in {releases} of the generated exports")
    source = source.replace(_GO_RELEASE, "")
    source = _in_order(rf"^//export {_PACKAGE_PREFIX}\w+\n.*?^\}}\n", source)
    return re.sub(r"^//export (\w+)\n", lambda m: m[0] if m[1] in kept else "", source, flags=re.M)


def signatures(source: str) -> dict[str, Signature]:
    """What the exports of the generated Go file take and return."""
    found = {}
    for name, parameters, result in re.findall(
        rf"^func ({_PACKAGE_PREFIX}\w+)\((.*)\) (\S+) \{{$", source, re.M
    ):
        kinds = [parameter.split(" ")[-1] for parameter in parameters.split(", ") if parameter]
        if unknown := {*kinds, result} - {"CGoHandle", "C.longlong"}:
            raise PatchError(f"the generated {name} has types that are not known: {unknown}")
        found[name] = Signature(tuple(k == "CGoHandle" for k in kinds), result == "CGoHandle")
    return found


def patch_stubs(source: str, *, name: str) -> str:
    """Patches ``build.py``, the pybindgen script that gopy generates."""
    source = _apply(source, _STUB_EDITS, name=name)
    kept: set[str] = set()

    def keep(match: re.Match[str]) -> str:
        function = match["function"]
        if function not in _FOR_PYTHON and not function.startswith(_PACKAGE_PREFIX):
            return ""
        kept.add(function)
        return match[0]

    source = re.sub(
        r"^(?:mod\.add_function\(|add_checked\w*_function\(mod, )'(?P<function>\w+)',.*\n",
        keep,
        source,
        flags=re.M,
    )
    _require(_FOR_PYTHON, kept, "pybindgen")
    return _in_order(rf"^add_checked\w*_function\(mod, '{_PACKAGE_PREFIX}\w+',.*?\n", source)


# The parameter of exports that wait. The others return at once: for a thread to queue up for the
# interpreter's lock again would take far longer than they do.
_WAITS = "slice"

_WRAPPER = re.compile(
    r"^PyObject \*\n_wrap_\w*?_(?P<function>pybind_\w+)\([^\n]*\)\n\{\n.*?^\}\n", re.M | re.S
)
_CALL = re.compile(
    r"^    retval = (?P<function>\w+)\((?P<arguments>[\w, ]*)\);\n"
    r"    if \(PyErr_Occurred\(\)\) \{\n        return NULL;\n    \}\n"
    r"    py_retval = Py_BuildValue\(\(char \*\) \"L\", retval\);\n",
    re.M,
)


def patch_c(source: str, exports: Mapping[str, Signature]) -> str:
    """Patches the C file that pybindgen generates.

    Bytes cross the boundary within the call, not as handles in calls of their own: what a signal
    may come in between of, an interrupted caller would have to give back.
    """
    source = _apply(source, _C_EDITS)
    wrapped = [match["function"] for match in _WRAPPER.finditer(source)]
    if sorted(wrapped) != sorted(exports):
        raise PatchError(f"the generated C wraps {wrapped}, not {sorted(exports)}")
    return _WRAPPER.sub(lambda m: _patch_wrapper(m[0], exports[m["function"]]), source)


def _patch_wrapper(wrapper: str, signature: Signature) -> str:
    call = _CALL.search(wrapper)
    if call is None:
        raise PatchError(f"the generated wrapper has no such call:\n{wrapper}")
    names = [name for name in call["arguments"].split(", ") if name]
    if len(names) != len(signature.parameters):
        raise PatchError(f"the generated wrapper calls with {names}:\n{wrapper}")
    lines, arguments = [], list(names)
    for i, name in enumerate(names):
        if signature.parameters[i]:
            lines.append(f"    const int64_t {name}_handle = Slice_byte_from_bytes({name});\n")
            arguments[i] = f"{name}_handle"
            wrapper = _replace(wrapper, f"    int64_t {name};\n", f"    PyObject *{name};\n")
    calling = f"    retval = {call['function']}({', '.join(arguments)});\n"
    if _WAITS in names:
        calling = f"    Py_BEGIN_ALLOW_THREADS\n{calling}    Py_END_ALLOW_THREADS\n"
    lines.append(calling)
    if signature.result:
        lines.append("    py_retval = Slice_byte_to_bytes(retval);\n")
    else:
        lines.append("    py_retval = PyLong_FromLongLong(retval);\n")
    wrapper = wrapper.replace(call[0], "".join(lines))
    if names:
        codes = "".join("S" if is_bytes else "L" for is_bytes in signature.parameters)
        wrapper = _replace(wrapper, f'(char *) "{"L" * len(names)}"', f'(char *) "{codes}"')
    return wrapper


def _replace(text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        raise PatchError(f"expected one of {old!r} in the generated wrapper:\n{text}")
    return text.replace(old, new)


def _require(wanted: Set[str], kept: Set[str], generator: str) -> None:
    missing = sorted(wanted - kept)
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


def _in_order(pattern: str, source: str) -> str:
    """Sorts what gopy writes in another order each time, so that the same is compiled."""
    found = sorted(match[0] for match in re.finditer(pattern, source, re.M | re.S))
    return re.sub(pattern, lambda _: found.pop(0), source, flags=re.M | re.S)


def _constant(text: str) -> Callable[[re.Match[str]], str]:
    return lambda _: text
