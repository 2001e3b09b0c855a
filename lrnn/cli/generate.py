"""`lrnn generate TEXT`: a language model goes on with a text, character by character as they come."""

from __future__ import annotations

import sys
import time

from lrnn.engine import ENGINES


def add(commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "generate",
        help="go on with a text",
        description="Write TEXT and what a language model makes of it to stdout, as it comes; on stderr, how "
        "fast it came.",
    )
    parser.add_argument("text", metavar="TEXT", help="to go on from, at least one character; '-' is stdin")
    parser.add_argument(
        "--model", metavar="M", help="a language model's program (.lrnn); default: the shipped one"
    )
    parser.add_argument(
        "--tokens", metavar="N", type=int, default=500, help="how many to write (default: 500)"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.8, help="below 1 is surer, 0 the likeliest (default: 0.8)"
    )
    parser.add_argument(
        "--top-p", metavar="P", type=float, default=0.95, help="of the likeliest this share (default: 0.95)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    parser.add_argument("--engine", choices=ENGINES, help="default: native where it is built, else numpy")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Read, go on, tell how fast."""
    import lrnn
    from lrnn.data.generate import Generator, Sampler
    from lrnn.engine import default_engine
    from lrnn.models import LANGUAGE

    if args.tokens < 0:
        raise ValueError(f"--tokens is {args.tokens}, expected 0 or more")
    sampler = Sampler(args.temperature, args.top_p, args.seed)
    try:
        text = sys.stdin.read() if args.text == "-" else args.text
        text.encode()
    except UnicodeError as error:
        raise ValueError(f"TEXT is not UTF-8 ({error})") from None
    engine = args.engine or default_engine()
    generator = Generator(lrnn.load(args.model or LANGUAGE), engine)
    if not generator.read(text):
        raise ValueError("TEXT is empty, expected at least one character")
    decoder = generator.tokenizer.decoder()
    _write(text)
    begun = time.perf_counter()
    for token in generator.tokens(args.tokens, sampler):
        _write(decoder.step(token))
    spent = time.perf_counter() - begun
    _write(decoder.end() + "\n")
    kind = "bytes" if generator.tokenizer.definition is None else "tokens"
    rate = args.tokens / spent if args.tokens else 0.0
    print(f"{args.tokens} {kind}, {rate:,.0f} {kind}/s, {engine} engine", file=sys.stderr)
    return 0


def _write(text: str) -> None:
    """Give it to the reader now."""
    if text:
        sys.stdout.write(text)
        sys.stdout.flush()
