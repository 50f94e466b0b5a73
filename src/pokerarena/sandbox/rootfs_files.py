"""What goes into the shared root file system, and what is taken out again.

Owns the lists only. A tuple of several names is one library under its names in different releases.
"""

from __future__ import annotations

from typing import Final

ALWAYS: Final[tuple[tuple[str, ...], ...]] = (
    ("libc6",),
    ("libgcc-s1",),
    ("libstdc++6",),
    ("zlib1g",),
    ("libexpat1",),
    ("libffi8",),
    ("libbz2-1.0",),
    ("liblzma5",),
    ("libssl3t64", "libssl3"),
    ("ca-certificates",),
    ("lib{python}-minimal",),
    ("lib{python}-stdlib",),
    ("{python}-minimal",),
)
WITH_NUMPY: Final[tuple[tuple[str, ...], ...]] = (
    ("python3-numpy",),
    ("libblas3",),
    ("liblapack3",),
    ("libgfortran5",),
    ("libquadmath0",),
)

# Not needed to play, or a tool that only an attacker would use.
PRUNED: Final = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/binfmts",
    "usr/share/applications",
    "usr/share/pixmaps",
    "usr/share/bug",
    "usr/share/gcc",
    "usr/share/gdb",
    "usr/sbin",
    "sbin",
    "etc/*",
    "var",
    "usr/bin/f2py*",
    "usr/bin/catchsegv",
    "usr/lib/*/gconv",
    "usr/lib/*/audit",
    "usr/lib/*/engines-3",
    "usr/lib/*/ossl-modules/fips.so",
    "lib/*/audit",
    "usr/lib/python3/dist-packages/numpy/**/tests",
    "usr/lib/python3/dist-packages/numpy/f2py",
    "usr/lib/python3/dist-packages/numpy/distutils",
    "usr/lib/python3/dist-packages/numpy/core/include",
    "usr/lib/python3/dist-packages/numpy/core/lib",
    "usr/lib/python3/dist-packages/numpy/random/lib",
    "usr/include",
)
PRUNED_FROM_PYTHON: Final = (
    "__pycache__",
    "idlelib",
    "tkinter",
    "ensurepip",
    "lib2to3",
    "pydoc_data",
    "turtledemo",
    "test",
    "sitecustomize.py",
    "EXTERNALLY-MANAGED",
    "lib-dynload/_sqlite3*",
    "lib-dynload/_curses*",
    "lib-dynload/_dbm*",
    "lib-dynload/_gdbm*",
    "lib-dynload/readline*",
    "lib-dynload/nis*",
    "lib-dynload/_uuid*",
    "lib-dynload/_crypt*",
)
STATIC_FILES: Final = {
    "etc/passwd": (  # pragma: allowlist secret
        "root:x:0:0:root:/:/nonexistent\nagent:x:1000:1000:agent:/tmp:/nonexistent\n"
    ),
    "etc/group": "root:x:0:\nagent:x:1000:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "etc/hosts": "127.0.0.1 localhost\n",
}
