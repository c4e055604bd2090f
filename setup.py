"""The part of the build that pyproject.toml cannot say: how the extension is made."""

import shutil
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

from extbuild import extension, patch, sbom, toolchain


class Build(build):
    def run(self) -> None:
        # setuptools never removes from this folder, and a wheel would still have deleted modules.
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class BuildExtension(build_ext):
    def build_extension(self, ext: Extension) -> None:
        destination = Path(self.get_ext_fullpath(ext.name))
        destination.parent.mkdir(parents=True, exist_ok=True)
        try:
            extension.install(extension.build(), destination)
        except (toolchain.BuildError, patch.PatchError) as error:
            raise CompileError(str(error)) from error


class BuildWheel(bdist_wheel):
    def egg2dist(self, egginfo_path: str, distinfo_path: str) -> None:
        super().egg2dist(egginfo_path, distinfo_path)
        sbom.write(
            extension.build(),  # built by now: this only finds it
            Path(distinfo_path, "sboms", "natslease.cdx.json"),
            version=f"v{self.distribution.get_version()}",
        )

    def get_tag(self) -> tuple[str, str, str]:
        python, abi, platform = super().get_tag()
        return python, abi, toolchain.find_compiler().platform_tag or platform


setup(
    cmdclass={"build": Build, "bdist_wheel": BuildWheel, "build_ext": BuildExtension},
    ext_modules=[Extension("natslease._natslease", sources=[], py_limited_api=True)],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
