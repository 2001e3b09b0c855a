"""`python -m lrnn_lava FOLDER`: verify an export on Lava's simulator.

Lines of JSON on stdout: {"done": steps, "of": steps} while it runs, then the result of verify. Exit status 0
where all integers are equal, 1 where one differs, 2 where the export cannot be read or run.
"""

from __future__ import annotations

import json
import sys


def main() -> int:
    """Run, report."""
    if len(sys.argv) != 2:
        print("usage: python -m lrnn_lava FOLDER", file=sys.stderr)
        return 2
    from lrnn_lava.verify import verify

    try:
        result = verify(sys.argv[1], lambda done, of: print(json.dumps({"done": done, "of": of}), flush=True))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        print(f"lrnn_lava: error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result), flush=True)
    return 0 if result["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
