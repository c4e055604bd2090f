"""The patch of the generated code: what it does, and that it stops when the code changes."""

from __future__ import annotations

import re

import pytest

from extbuild import patch
from extbuild.patch import Signature

GO = """\
package main

/*

#cgo CFLAGS: "-I/usr/include/python3.11" -Wno-error
#cgo LDFLAGS: "-L/usr/lib" "-lpython3.11" -ldl

// #define Py_LIMITED_API // need full API for PyRun*
#include <Python.h>
static inline int gopy_method_check(PyObject* obj) { // macro
	return PyMethod_Check(obj);
}
static inline void gopy_err_handle() {
	if(PyErr_Occurred() != NULL) {
		PyErr_Print();
	}
}
*/
import "C"

//export NumHandles
func NumHandles() int {
	return gopyh.NumHandles()
}

// _gcReq carries GC requests from RequestGC (called on a CGo/needm M) to a
// dedicated goroutine that actually calls runtime.GC().
var _gcReq = make(chan chan struct{})

func init() {
	go func() {
		for done := range _gcReq {
			runtime.GC()
			close(done)
		}
	}()
}

//export RequestGC
func RequestGC() {
	done := make(chan struct{})
	_gcReq <- done
	<-done
}

func complex64GoToPy(c complex64) *C.PyObject {
	return C.PyComplex_FromDoubles(C.double(real(c)), C.double(imag(c)))
}

func complex64PyToGo(o *C.PyObject) complex64 {
	v := C.PyComplex_AsCComplex(o)
	return complex(float32(v.real), float32(v.imag))
}

func complex128GoToPy(c complex128) *C.PyObject {
	return C.PyComplex_FromDoubles(C.double(real(c)), C.double(imag(c)))
}

func complex128PyToGo(o *C.PyObject) complex128 {
	v := C.PyComplex_AsCComplex(o)
	return complex(float64(v.real), float64(v.imag))
}

//export Slice_bool_len
func Slice_bool_len(handle CGoHandle) int {
	return len(deptrFromHandle_Slice_bool(handle))
}

func deptrFromHandle_Slice_byte(h CGoHandle) []byte {
	p := ptrFromHandle_Slice_byte(h)
	if p == nil {
		return nil
	}
	return *p
}

//export Slice_byte_from_bytes
func Slice_byte_from_bytes(o *C.PyObject) CGoHandle {
	size := C.PyBytes_Size(o)
	ptr := unsafe.Pointer(C.PyBytes_AsString(o))
	data := make([]byte, size)
	tmp := unsafe.Slice((*byte)(ptr), size)
	copy(data, tmp)
	return handleFromPtr_Slice_byte(&data)
}

//export Slice_byte_to_bytes
func Slice_byte_to_bytes(handle CGoHandle) *C.PyObject {
	s := deptrFromHandle_Slice_byte(handle)
	ptr := unsafe.Pointer(&s[0])
	size := len(s)
	return C.PyBytes_FromStringAndSize((*C.char)(ptr), C.long(size))
}

//export pybind_Wait
func pybind_Wait(ticket C.longlong) CGoHandle {
	_saved_thread := C.PyEval_SaveThread()
	defer C.PyEval_RestoreThread(_saved_thread)
	cret := pybind.Wait(int64(ticket))

	return handleFromPtr_Slice_byte(&cret)
}

//export pybind_Open
func pybind_Open(client C.longlong, config CGoHandle) C.longlong {
	_saved_thread := C.PyEval_SaveThread()
	defer C.PyEval_RestoreThread(_saved_thread)
	return C.longlong(pybind.Open(int64(client), deptrFromHandle_Slice_byte(config)))
}

//export pybind_Logs
func pybind_Logs() CGoHandle {
	_saved_thread := C.PyEval_SaveThread()
	defer C.PyEval_RestoreThread(_saved_thread)
	cret := pybind.Logs()

	return handleFromPtr_Slice_byte(&cret)
}
"""

STUBS = """\
mod = Module('_natslease')
mod.add_include('"natslease_go.h"')
mod.add_function('GoPyInit', None, [])
mod.add_function('NumHandles', retval('int'), [])
mod.add_function('RequestGC', None, [])
add_checked_string_function(mod, 'Slice_string_elem', retval('char*'), [])
mod.add_function('Slice_byte_from_bytes', retval('int64_t'), [param('PyObject*', 'o')])
mod.add_function('Slice_byte_to_bytes', retval('PyObject*'), [param('int64_t', 'handle')])
add_checked_function(mod, 'pybind_Wait', retval('int64_t'), [param('int64_t', 'ticket')])
add_checked_string_function(mod, 'pybind_Version', retval('char*'), [])

mod.generate(open('natslease.c', 'w'))
"""

C = """\
typedef PyAsyncMethods* cmpfunc;

PyObject *
_wrap__natslease_pybind_Open(PyObject * PYBINDGEN_UNUSED(dummy), PyObject *args, PyObject *kwargs)
{
    PyObject *py_retval;
    int64_t retval;
    int64_t client;
    int64_t config;
    const char *keywords[] = {"client", "config", NULL};

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, (char *) "LL", (char **) keywords, &client, &config)) {
        return NULL;
    }
    retval = pybind_Open(client, config);
    if (PyErr_Occurred()) {
        return NULL;
    }
    py_retval = Py_BuildValue((char *) "L", retval);
    return py_retval;
}


PyObject *
_wrap__natslease_pybind_Logs(PyObject *PYBINDGEN_UNUSED(_args), PyObject *PYBINDGEN_UNUSED(_kwargs))
{
    PyObject *py_retval;
    int64_t retval;

    retval = pybind_Logs();
    if (PyErr_Occurred()) {
        return NULL;
    }
    py_retval = Py_BuildValue((char *) "L", retval);
    return py_retval;
}
"""  # noqa: E501
SIGNATURES = {"pybind_Open": Signature((False, True), False), "pybind_Logs": Signature((), True)}


def go(source: str = GO) -> str:
    return patch.patch_go(source, include="/opt/my python/include")


def test_go_is_compiled_for_the_stable_abi_and_links_nothing() -> None:
    patched = go()
    assert '\n#cgo CFLAGS: -O2 -DPy_LIMITED_API=0x030A0000 "-I/opt/my python/include"\n' in patched
    for absent in ("LDFLAGS", "#define Py_LIMITED_API", "PyMethod_Check", "PyComplex"):
        assert absent not in patched
    assert "gopy_err_handle" in patched


def test_go_starts_no_goroutine() -> None:
    assert "go func" not in go()
    assert "RequestGC" not in go()


def test_go_exports_what_python_calls_and_keeps_the_rest_for_the_linker_to_drop() -> None:
    patched = go()
    assert re.findall(r"^//export (\w+)$", patched, re.M) == [
        "NumHandles",
        "Slice_byte_from_bytes",
        "Slice_byte_to_bytes",
        "pybind_Wait",
        "pybind_Open",
        "pybind_Logs",
    ]
    assert "func Slice_bool_len(" in patched


def test_go_does_not_wait_for_the_interpreter() -> None:
    assert "PyEval_" not in go()


def test_signatures_tell_bytes_from_numbers() -> None:
    assert patch.signatures(GO) == {**SIGNATURES, "pybind_Wait": Signature((False,), True)}
    with pytest.raises(patch.PatchError, match="types that are not known"):
        patch.signatures(GO.replace("ticket C.longlong", "ticket *C.char"))


def test_stubs_wrap_the_same_functions() -> None:
    patched = patch.patch_stubs(STUBS, name="natslease")
    assert re.findall(r"'(\w+)', (?:None|retval)", patched) == [
        "NumHandles",
        "pybind_Wait",
        "pybind_Version",
    ]
    assert "mod.add_include('\"_cgo_export.h\"')\n" in patched
    assert patched.endswith("\nmod.generate(open('natslease.c', 'w'))\n")


def test_c_uses_no_type_outside_the_stable_abi() -> None:
    assert "PyAsyncMethods" not in patch.patch_c(C, SIGNATURES)


def test_c_converts_bytes_within_the_call_and_lets_go_of_the_interpreter_around_it() -> None:
    patched = patch.patch_c(C, SIGNATURES)
    assert '"LS", (char **) keywords, &client, &config' in patched
    assert "    PyObject *config;\n" in patched
    assert (
        "    const int64_t config_handle = Slice_byte_from_bytes(config);\n"
        "    Py_BEGIN_ALLOW_THREADS\n"
        "    retval = pybind_Open(client, config_handle);\n"
        "    Py_END_ALLOW_THREADS\n"
        "    py_retval = PyLong_FromLongLong(retval);\n"
        "    return py_retval;\n"
    ) in patched
    assert (
        "    Py_BEGIN_ALLOW_THREADS\n"
        "    retval = pybind_Logs();\n"
        "    Py_END_ALLOW_THREADS\n"
        "    py_retval = Slice_byte_to_bytes(retval);\n"
    ) in patched


@pytest.mark.parametrize(
    ("expected", "changed"),
    [
        ("#cgo LDFLAGS: ", "#cgo linux LDFLAGS: "),
        ("// #define Py_LIMITED_API", "#define Py_LIMITED_API"),
        ("int gopy_method_check", "bool gopy_method_check"),
        ("func complex64PyToGo(", "func complex64FromPy("),
        ("func RequestGC() {", "func RequestGC() error {"),
        ("\tsize := C.PyBytes_Size(o)\n", "\tn := C.PyBytes_Size(o)\n"),
        ("unsafe.Pointer(&s[0])", "unsafe.Pointer(&data[0])"),
        ("//export NumHandles", "//export Handles"),
        ("//export pybind_Wait", "//export Pybind_Wait"),
        ("\tdefer C.PyEval_RestoreThread(_saved_thread)\n\treturn", "\treturn"),
    ],
)
def test_changed_go_stops_the_build(expected: str, changed: str) -> None:
    assert expected in GO
    with pytest.raises(patch.PatchError, match="generated"):
        go(GO.replace(expected, changed))


@pytest.mark.parametrize(
    ("expected", "changed"),
    [
        ("mod.add_include('\"natslease_go.h\"')", "mod.add_include('\"natslease.h\"')"),
        ("mod.add_function('NumHandles'", "mod.add_function('Handles'"),
    ],
)
def test_changed_stubs_stop_the_build(expected: str, changed: str) -> None:
    assert expected in STUBS
    with pytest.raises(patch.PatchError, match="generated"):
        patch.patch_stubs(STUBS.replace(expected, changed), name="natslease")


@pytest.mark.parametrize(
    ("expected", "changed"),
    [
        ("typedef PyAsyncMethods* cmpfunc;", "typedef PyAsyncMethods * cmpfunc;"),
        ("    int64_t config;\n", "    long config;\n"),
        ('"LL"', '"LK"'),
        ("pybind_Open(client, config);", "pybind_Open(client);"),
        ('Py_BuildValue((char *) "L", retval)', "PyLong_FromLong(retval)"),
        ("_wrap__natslease_pybind_Logs(", "_wrap__natslease_Logs("),
    ],
)
def test_changed_c_stops_the_build(expected: str, changed: str) -> None:
    assert expected in C
    with pytest.raises(patch.PatchError, match="generated"):
        patch.patch_c(C.replace(expected, changed), SIGNATURES)


def test_a_path_that_cgo_cannot_quote_is_refused() -> None:
    with pytest.raises(patch.PatchError, match=r"Python\.h"):
        patch.patch_go(GO, include='/opt/a"b')
