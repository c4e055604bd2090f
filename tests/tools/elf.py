"""What a shared object asks of the system that loads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from elftools.elf.sections import SymbolTableSection

# All that glibc calls libc, before and since it became one library (2.34).
LIBC = frozenset(
    {
        "ld-linux-aarch64.so.1",
        "ld-linux-x86-64.so.2",
        "libc.so.6",
        "libdl.so.2",
        "libpthread.so.0",
    }
)


class Library(NamedTuple):
    """The loader's view of a shared object."""

    size: int
    needed: tuple[str, ...]
    """Names of the libraries it links."""
    glibc: tuple[int, ...]
    """The newest glibc whose symbols it uses."""
    undefined: frozenset[str]
    """Symbols that another object must provide."""
    exported: frozenset[str]
    """Symbols that another object can use."""

    def __str__(self) -> str:
        return (
            f"{self.size / 2**20:.1f} MiB, needs {' '.join(self.needed)}, "
            f"glibc {'.'.join(map(str, self.glibc))}"
        )


def describe(path: Path) -> Library:
    """Reads the dynamic section, the version requirements and the dynamic symbols."""
    with path.open("rb") as file:
        elf = ELFFile(file)
        dynamic = elf.get_section_by_name(".dynamic")
        requirements = elf.get_section_by_name(".gnu.version_r")
        symbols = elf.get_section_by_name(".dynsym")
        assert isinstance(dynamic, DynamicSection)
        assert isinstance(requirements, GNUVerNeedSection)
        assert isinstance(symbols, SymbolTableSection)
        # The attribute is set for this kind of tag only, so the library does not declare it.
        needed = tuple(
            str(tag.needed)  # type: ignore[attr-defined]
            for tag in dynamic.iter_tags()
            if tag.entry.d_tag == "DT_NEEDED"
        )
        versions = [
            tuple(map(int, re.findall(r"\d+", auxiliary.name)))
            for _, auxiliaries in requirements.iter_versions()
            for auxiliary in auxiliaries
            if auxiliary.name.startswith("GLIBC_2")
        ]
        named = [symbol for symbol in symbols.iter_symbols() if symbol.name]
        undefined = frozenset(s.name for s in named if s.entry.st_shndx == "SHN_UNDEF")
        exported = frozenset(s.name for s in named) - undefined
    return Library(path.stat().st_size, needed, max(versions), undefined, exported)
