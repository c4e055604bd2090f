"""Every code block of the documentation does what the page says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import docrunner
from docpages import PageFailed, name_of, pages

# Outside of code, where brackets mean other things.
_LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"^( *)```.*?^\1```|`[^`\n]*`", re.DOTALL | re.MULTILINE)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_block_runs(page: Path) -> None:
    docrunner.run(page)


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(_CODE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page}: {target}"
        if heading:
            assert heading in headings(there), f"{page}: {target}"


def headings(page: Path) -> set[str]:
    """What links to the headings of a page end with."""
    text = _CODE.sub(lambda m: m[0] if "\n" not in m[0] else "", page.read_text())
    found = re.findall(r"^#+ +(.*?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in found}


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], None]:
    """Runs a page of this text."""

    def run(text: str) -> None:
        page = tmp_path / "page.md"
        page.write_text(text)
        docrunner.run(page)

    return run


def test_blocks_share_a_folder_and_a_server(run: Callable[[str], None]) -> None:
    run("""
<!-- test: file package/names.py -->
```python
STREAM = "images"
```

<!-- test: file package/names.py more -->
```python
URL = "nats://localhost:4222"
```

<!-- test: python
import os, sys
sys.path.append(".")
from package.names import STREAM, URL
assert os.environ["NATS_URL"] == URL
-->

1. In a list:

   <!-- test: console -->
   ```console
   $ ls package
   names.py
   ```

<!-- test: python more -->
```python
import natslease

queue = natslease.Client(URL).queue(STREAM)
queue.ensure()
print(queue.publish([b"a"]).accepted)
```

<!-- test: output -->
```
[PublishResult(index=0, id='...', seq=1, error=None)]
```

<!-- test: console -->
```console
$ python -c 'import os, natslease; \\
    print(natslease.Client(os.environ["NATS_URL"]).queue("images").info().messages)'
1
$ export GREETING=hello
$ echo "$GREETING, world"    # a comment
hello...
```
""")


def test_go_parsers_and_servers(run: Callable[[str], None]) -> None:
    run("""
<!-- test: go -->
```go
package main

import "fmt"

func main() { fmt.Println("nats://localhost:4222") }
```
<!-- test: output -->
```
nats://localhost:4222
```

<!-- test: parse -->
```toml
a = 1
```

<!-- test: parse -->
```yaml
a: [1]
```

<!-- test: parse -->
```json
{"a": 1}
```

<!-- test: parse -->
```ini
[Service]
Environment=A=1
Environment=B=%1
```

<!-- test: nats-server -->
```conf
authorization { user: a, password: $SOME_PASSWORD }
```

<!-- test: make -->
```console
$ make test    # everything
```

<!-- test: serve Serving HTTP -->
```console
$ python -m http.server --bind 127.0.0.1 $(echo localhost:8000 | cut -d: -f2)
```

<!-- test: bash -->
```bash
python -c 'import urllib.request as r; print(r.urlopen("http://localhost:8000").status)'
```
<!-- test: output -->
```
200
```

```text
no test
```
""")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("```python\n1 / 0\n```", "page.md:2: no marker"),
        ("```whatever\n1 / 0\n```", "page.md:2: no marker"),
        ("<!-- test: pyhton -->\n```python\n```", "page.md:3: 'pyhton' is none of"),
        ("<!-- test: python -->\n\n```python\n```", "no block follows"),
        ("<!-- test: python -->", "no block follows"),
        ("<!-- test: python -->\n```python\n1", "has no end"),
        ("\n<!-- test: python -->\n```python\n1 / 0\n```", r'page_4\.py", line 4'),
        ("<!-- test: python\n1 / 0\n-->", r'page_2\.py", line 2'),
        ("<!-- test: python -->\n```python\nopen('x', 'w')\n```", "ResourceWarning"),
        ("<!-- test: python more -->\n```python\n1\n```", "no program that this could go on"),
        (
            "<!-- test: python -->\n```python\na = 0\n```\nand\n"
            "<!-- test: python more -->\n```python\n1 / a\n```",
            r'page_8\.py", line 8',
        ),
        ("<!-- test: go -->\n```go\npackage main\n```", "main is undeclared"),
        ("<!-- test: bash -->\n```bash\nfalse\ntrue\n```", "ended with 1"),
        ("<!-- test: console -->\n```console\n$ echo a\nb\n```", "has written\na"),
        ("<!-- test: console -->\n```console\n$ false\n$ true\n```", "ended with 1"),
        ("<!-- test: console -->\n```console\ntrue\n```", "no line with"),
        ("<!-- test: make -->\n```console\n$ make nothing\n```", "No rule to make target"),
        ("<!-- test: parse -->\n```json\n{\n```", "page.md:3"),
        ("<!-- test: parse -->\n```toml\na\n```", "page.md:3"),
        ("<!-- test: parse -->\n```yaml\na: [\n```", "page.md:3"),
        ("<!-- test: parse -->\n```ini\na\n```", "page.md:3"),
        ("<!-- test: nats-server -->\n```conf\nprot: 4222\n```", "unknown field"),
        ("<!-- test: file a.py -->\n```python\n1 / 0\n```", "nothing is run"),
        ("<!-- test: file ../a.py -->\n```python\n```\n<!-- test: bash\n-->", "a file"),
        ("<!-- test: serve ready -->\n```console\n$ echo steady\n```", "has not written"),
        ("<!-- test: serve -->\n```console\n$ echo steady\n```", "which output"),
        (
            "<!-- test: serve ready -->\n```console\n"
            "$ trap 'sleep 0.1; exit 3' TERM; echo ready; while true; do sleep 0.05; done\n```",
            "ended with 3",
        ),
        (
            "<!-- test: python -->\n```python\nprint(1)\n```\n<!-- test: output -->\n```\n2\n```",
            "the block before has written\n1",
        ),
    ],
)
def test_what_is_wrong_is_noticed(run: Callable[[str], None], text: str, why: str) -> None:
    with pytest.raises(PageFailed, match=why):
        run(text)
